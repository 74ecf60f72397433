// A picture with its patches: sharp where they are kept, blurred and hatched where they are not.

const LIGHT = { paper: "#ffffff", ink: "#16191c", mark: "#0a6a66", halo: "#ffffff", fade: 0.44 };
const DARK = { paper: "#171b1e", ink: "#e9e7e2", mark: "#7fe0d3", halo: "#101315", fade: 0.22 };
const night = window.matchMedia("(prefers-color-scheme: dark)");
let printing = false;

function palette() {
  return night.matches && !printing ? DARK : LIGHT;
}

// Fits a canvas to its place on the screen; returns its context, width and height in its pixels.
function fitted(canvas, ratio) {
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const width = Math.max(Math.round(canvas.clientWidth * scale), 1);
  const height = Math.max(Math.round(width / ratio), 1);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  return { brush: canvas.getContext("2d"), width, height, scale };
}

function ratioOf(picture, sheet) {
  if (picture.width) return picture.width / picture.height;
  const { columns, rows, box: [left, top, right, bottom] } = sheet.views[0];
  return (columns * (bottom - top)) / (rows * (right - left));
}

// Every cell of a sheet with its rectangle, in whole pixels so that neighbours leave no seam.
function* cellsOf(sheet, width, height) {
  for (const view of sheet.views) {
    const [left, top, right, bottom] = view.box;
    const x = (column) => Math.round((left + ((right - left) * column) / view.columns) * width);
    const y = (row) => Math.round((top + ((bottom - top) * row) / view.rows) * height);
    for (let row = 0; row < view.rows; row++) {
      for (let column = 0; column < view.columns; column++) {
        const token = view.cells[row * view.columns + column];
        const [x0, y0, x1, y1] = [x(column), y(row), x(column + 1), y(row + 1)];
        yield { view, row, column, token, x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
      }
    }
  }
}

const blurs = new WeakMap();

// The picture at a pixel or two for a patch, which browsers draw large as a soft blur.
function blurred(image, sheet) {
  if (!blurs.has(image)) blurs.set(image, new Map());
  const known = blurs.get(image);
  if (!known.has(sheet)) {
    const canvas = document.createElement("canvas");
    const columns = sheet.views.reduce((most, one) => {
      return Math.max(most, one.columns / (one.box[2] - one.box[0]));
    }, 1);
    canvas.width = Math.max(Math.round(1.6 * columns), 2);
    canvas.height = Math.max(Math.round((canvas.width * image.naturalHeight) / image.naturalWidth), 2);
    const brush = canvas.getContext("2d");
    brush.imageSmoothingQuality = "high";
    brush.drawImage(image, 0, 0, canvas.width, canvas.height);
    brush.globalCompositeOperation = "saturation"; // the edge of the eye sees little colour
    brush.globalAlpha = 0.7;
    brush.fillStyle = "#808080";
    brush.fillRect(0, 0, canvas.width, canvas.height);
    known.set(sheet, canvas);
  }
  return known.get(sheet);
}

function hatch(brush, step, colour) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = step;
  const pen = tile.getContext("2d");
  pen.strokeStyle = colour;
  pen.lineWidth = Math.max(step / 9, 0.8);
  for (const shift of [-step, 0, step]) {
    pen.moveTo(shift, step);
    pen.lineTo(shift + step, 0);
  }
  pen.stroke();
  return brush.createPattern(tile, "repeat");
}

// What lies under everything: the picture that nobody remembers well.
function ground(brush, image, sheet, width, height, scale, colours) {
  brush.clearRect(0, 0, width, height);
  brush.fillStyle = colours.paper;
  brush.fillRect(0, 0, width, height);
  if (image) {
    brush.imageSmoothingEnabled = true;
    brush.imageSmoothingQuality = "high";
    brush.globalAlpha = colours.fade;
    brush.drawImage(blurred(image, sheet), 0, 0, width, height);
  }
  const small = width < 300 * scale;
  brush.globalAlpha = 0.17;
  brush.fillStyle = hatch(brush, Math.round((small ? 5 : 8) * scale), colours.ink);
  brush.fillRect(0, 0, width, height);
  brush.globalAlpha = 1;
}

function paintKept(canvas, image, picture, sheet, shares, fine = false) {
  const { brush, width, height, scale } = fitted(canvas, ratioOf(picture, sheet));
  const colours = palette();
  ground(brush, image, sheet, width, height, scale, colours);
  const cells = [...cellsOf(sheet, width, height)];
  for (const cell of cells) {
    const share = cell.token < 0 ? 0 : shares[cell.token];
    if (share <= 0) continue;
    brush.globalAlpha = 1;
    brush.fillStyle = colours.paper;
    brush.fillRect(cell.x, cell.y, cell.width, cell.height);
    brush.globalAlpha = 0.45 + 0.55 * share;
    sharp(brush, image, cell, width, height, colours);
  }
  brush.globalAlpha = 1;
  if (!fine) contour(brush, cells, shares, (share) => share > 0, [[colours.ink, 1.1 * scale]], 3 * scale);
  const line = fine ? 1 * scale : 1.75 * scale;
  contour(brush, cells, shares, (share) => share >= 0.5, [[colours.halo, 2.4 * line], [colours.mark, line]]);
}

function sharp(brush, image, cell, width, height, colours) {
  if (!image) {
    brush.fillStyle = colours.mark;
    const gap = Math.max(Math.round(cell.width / 12), 1);
    brush.fillRect(cell.x + gap, cell.y + gap, cell.width - 2 * gap, cell.height - 2 * gap);
    return;
  }
  const across = image.naturalWidth / width;
  const down = image.naturalHeight / height;
  brush.imageSmoothingQuality = "high";
  brush.drawImage(
    image, cell.x * across, cell.y * down, cell.width * across, cell.height * down,
    cell.x, cell.y, cell.width, cell.height,
  ); // prettier-ignore
}

// Lines between the patches whose share is good and the others; none where all are alike.
function contour(brush, cells, shares, isGood, pens, dash = 0) {
  const good = cells.filter((cell) => cell.token >= 0 && isGood(shares[cell.token]));
  if (good.length === cells.filter((cell) => cell.token >= 0).length) return;
  const starts = new Set(good.map((cell) => `${cell.x} ${cell.y}`));
  const after = new Set(good.map((cell) => `${cell.x + cell.width} ${cell.y}`));
  const below = new Set(good.map((cell) => `${cell.x} ${cell.y + cell.height}`));
  const path = new Path2D();
  const edge = (x0, y0, x1, y1) => {
    path.moveTo(x0, y0);
    path.lineTo(x1, y1);
  };
  for (const { x, y, width, height } of good) {
    if (!below.has(`${x} ${y}`)) edge(x, y, x + width, y);
    if (!after.has(`${x} ${y}`)) edge(x, y, x, y + height);
    if (!starts.has(`${x} ${y + height}`)) edge(x, y + height, x + width, y + height);
    if (!starts.has(`${x + width} ${y}`)) edge(x + width, y, x + width, y + height);
  }
  brush.lineCap = dash ? "butt" : "square";
  brush.setLineDash(dash ? [dash, dash] : []);
  for (const [colour, wide] of pens) {
    brush.strokeStyle = colour;
    brush.lineWidth = wide;
    brush.stroke(path);
  }
  brush.setLineDash([]);
}

// Discs as large as the looks that a patch gets: full where it is kept, rings where it is lost.
function paintLooks(canvas, image, picture, sheet, shares, looks) {
  const { brush, width, height, scale } = fitted(canvas, ratioOf(picture, sheet));
  const colours = palette();
  brush.clearRect(0, 0, width, height);
  brush.fillStyle = colours.paper;
  brush.fillRect(0, 0, width, height);
  brush.globalAlpha = 0.38;
  if (image) brush.drawImage(image, 0, 0, width, height);
  brush.globalAlpha = 1;
  const cells = [...cellsOf(sheet, width, height)].filter((cell) => cell.token >= 0);
  const most = Math.max(...cells.map((cell) => looks[cell.token]), 1e-12);
  for (const cell of cells) {
    const radius = 0.62 * cell.width * Math.sqrt(looks[cell.token] / most);
    if (radius < 1.5 * scale) continue;
    disc(brush, cell, radius, shares[cell.token], 1.5 * scale, colours);
  }
}

function disc(brush, cell, radius, share, line, colours) {
  const [x, y] = [cell.x + cell.width / 2, cell.y + cell.height / 2];
  brush.beginPath();
  brush.arc(x, y, radius, 0, 2 * Math.PI);
  brush.strokeStyle = colours.halo;
  brush.lineWidth = 2.4 * line;
  brush.stroke();
  brush.globalAlpha = share > 0 ? 0.25 + 0.75 * share : 0;
  brush.fillStyle = colours.mark;
  brush.fill();
  brush.globalAlpha = 1;
  brush.strokeStyle = colours.mark;
  brush.lineWidth = line;
  brush.stroke();
}

// Two lines around the cell that is read out, one dark and one light, to be seen on anything.
function paintCursor(canvas, sheet, place) {
  const brush = canvas.getContext("2d");
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  for (const cell of cellsOf(sheet, canvas.width, canvas.height)) {
    if (cell.view !== place.view || cell.row !== place.row || cell.column !== place.column) continue;
    const colours = palette();
    for (const [colour, wide] of [[colours.paper, 5], [colours.ink, 2]]) {
      brush.strokeStyle = colour;
      brush.lineWidth = wide * scale;
      brush.strokeRect(cell.x, cell.y, cell.width, cell.height);
    }
  }
}
