// A picture of the person's: chosen, dropped or pasted, or an example; made to fit the server's limits.

const READ = ["image/png", "image/jpeg", "image/webp", "image/gif"];

function addressOf(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("The file could not be read."));
    reader.readAsDataURL(file);
  });
}

async function opened(src) {
  const image = new Image();
  image.src = src;
  await image.decode();
  return image;
}

// What the server may be sent: the file as it is, or drawn anew where that is too much or unknown there.
async function pictureOf(file, config) {
  let src = await addressOf(file);
  let image = await opened(src).catch(() => {
    throw new Error(`${file.name || "What came"} is not a picture that this browser can read.`);
  });
  const pixels = image.naturalWidth * image.naturalHeight;
  if (!pixels) throw new Error("The picture says nothing of its size; save it as PNG or JPEG.");
  if (!READ.includes(file.type) || pixels > config.pixels || file.size > config.bytes) {
    src = redrawn(image, Math.min(1, Math.sqrt(config.pixels / pixels)), config.bytes);
    image = await opened(src);
  }
  return { src, image, name: file.name || "pasted picture", questions: [] };
}

function redrawn(image, scale, most) {
  const canvas = document.createElement("canvas");
  for (;;) {
    canvas.width = Math.max(Math.floor(image.naturalWidth * scale), 1);
    canvas.height = Math.max(Math.floor(image.naturalHeight * scale), 1);
    const brush = canvas.getContext("2d");
    brush.fillStyle = "white"; // on which the server puts what is transparent; JPEG would have it black
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.drawImage(image, 0, 0, canvas.width, canvas.height);
    const src = canvas.toDataURL("image/jpeg", 0.92);
    if (src.length * 0.75 <= most || scale < 0.01) return src;
    scale *= 0.7;
  }
}

// The place for a picture, and the ways to give one; `take` gets a picture, `wrong` what went wrong.
function picker(config, take, wrong) {
  const file = el("input", { type: "file", id: "file", accept: "image/*", hidden: true, tabindex: "-1" });
  let newest = null; // of what was given: what takes longer than a later one comes to nothing
  const give = async (coming) => {
    newest = coming;
    const [then, came] = await coming.then((picture) => [take, picture], (error) => [wrong, error]);
    if (newest === coming) then(came);
  };
  const read = (given) => give(pictureOf(given, config));
  file.addEventListener("change", () => {
    if (file.files.length) read(file.files[0]);
    file.value = "";
  });
  const choose = () => file.click();
  const example = (one) => give(opened(one.src).then((image) => ({ ...one, image, isExample: true })));
  listen(read, wrong);
  const chips = config.examples.map((one) =>
    el("button", { type: "button", class: "chip", onclick: () => example(one) }, one.name));
  const sources = el(
    "div",
    { class: "sources", role: "group", "aria-label": "Picture" },
    file,
    el("button", { type: "button", class: "chip strong", id: "choose", onclick: choose }, "Choose a picture"),
    el("span", { class: "soft wide" }, "or an example:"),
    chips,
  );
  return { sources, empty: () => dropZone(config, choose, example) };
}

function dropZone(config, choose, example) {
  const cards = config.examples.map((one) =>
    el(
      "button",
      { type: "button", class: "sample", "aria-label": `Example: ${one.name}`, onclick: () => example(one) },
      el("img", { src: one.src, alt: "" }), el("span", {}, one.name),
    ));
  return el(
    "div",
    { class: "drop", id: "drop" },
    el("p", { class: "invite fine" }, "Drop a picture here"),
    el("p", { class: "soft fine" }, "or paste one, or ",
      el("button", { type: "button", class: "link", onclick: choose }, "choose a file"), "."),
    el("button", { type: "button", class: "link invite coarse", onclick: choose }, "Choose a picture"),
    el("p", { class: "kicker" }, "Or begin with an example:"),
    el("div", { class: "samples" }, cards),
  );
}

// Pictures may be dropped and pasted anywhere on the page.
function listen(read, wrong) {
  const isPicture = (file) => file.type.startsWith("image/");
  const over = (isOver) => document.body.classList.toggle("over", isOver);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) over(false);
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    const [file] = event.dataTransfer.files;
    if (file) read(file);
    else wrong(new Error("What was dropped is no file; save the picture, and drop that."));
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find(isPicture);
    if (!file) return;
    event.preventDefault();
    read(file);
  });
}
