"""Write tests/eval/vectors: answers, and the scores that the harnesses' own code gives them.

Run it in an environment of its own that has lmms-eval, rouge-score and rouge, never in Foveate's:

    python scripts/metric_vectors.py --milebench evaluate.py tests/eval/vectors

`evaluate.py` is MileBench's file of that name, from its repository.
"""

import argparse
import importlib.util
import json
import random
from importlib.metadata import version
from pathlib import Path

from lmms_eval.api.metrics import anls, exact_match_hf_evaluate
from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor
from lmms_eval.tasks.chartqa.utils import relaxed_correctness
from lmms_eval.tasks.ocrbench.utils import ocrbench_process_results
from lmms_eval.tasks.screenspot.utils_rec import (
    compute_center_accuracy,
    parse_float_sequence_within,
)
from lmms_eval.tasks.screenspot_v2.utils import screenspot_v2_process_results
from lmms_eval.tasks.textvqa.utils import textvqa_process_results
from rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer

CASES = json.loads((Path(__file__).parent.parent / "tests/eval/cases.json").read_text())


def milebench(path):
    """Return MileBench's Eval, read from its file."""
    spec = importlib.util.spec_from_file_location("evaluate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Eval()


def random_pairs(number, seed):
    """Return texts of odd pieces, each with answers that share some of them."""
    dice = random.Random(seed)
    for _ in range(number):
        said = [dice.choice(CASES["pieces"]) for _ in range(dice.randint(1, 7))]
        answers = []
        for _ in range(dice.randint(1, 3)):
            pieces = [
                piece if dice.random() < 0.7 else dice.choice(CASES["pieces"]) for piece in said
            ]
            answers.append(dice.choice(["", " "]).join(pieces[: dice.randint(1, 7)]))
        answers = [answer if answer.strip() else "cat" for answer in answers]
        yield dice.choice(["", " ", " "]).join(said), answers


def best(formula, said, answers):
    """Return the highest of the formula's scores."""
    return max(float(formula(said, answer)) for answer in answers)


def asked(said, answers, seed):
    """Return ten answers, of those given and others, as ten people would give them."""
    dice = random.Random(f"{said}{answers}{seed}")
    return [dice.choice([*answers, said or "x", "dog"]) for _ in range(10)]


def text_vectors(pairs, score):
    """Return a vector for every pair of what was said and its answers."""
    return [
        {"said": said, "answers": answers, "score": score(said, answers)} for said, answers in pairs
    ]


def ocrbench(said, answers, dataset=""):
    """Return OCRBench's score."""
    row = {"answer": list(answers), "dataset": dataset, "question_type": ""}
    return float(ocrbench_process_results(row, [said])["ocrbench_accuracy"]["score"])


def strings():
    """Return the vectors of the metrics that compare texts."""
    pairs = CASES["texts"] + list(random_pairs(150, 1))
    rouge_l = RougeScorer(["rougeL"])
    yield (
        "exact",
        text_vectors(
            pairs,
            lambda said, answers: best(
                lambda one, other: exact_match_hf_evaluate([one], [other])["exact_match"],
                said,
                answers,
            ),
        ),
    )
    yield "anls", text_vectors(pairs, lambda s, a: float(anls(a, [s])["anls"]))
    yield "relaxed", text_vectors(pairs, lambda s, a: best(relaxed_correctness, s, a))
    formulas = [("\\frac{1} {2}", ["\\frac{1}{2}"]), ("X ^2", ["x^2"]), ("a\nb", ["a b"])]
    plain = text_vectors(pairs, ocrbench)
    special = text_vectors(formulas, lambda s, a: ocrbench(s, a, "HME100k"))
    yield "substring", plain + [{**row, "facts": {"dataset": "HME100k"}} for row in special]
    tens = [(said, asked(said, answers, n)) for n, (said, answers) in enumerate(pairs)]
    words = [*EvalAIAnswerProcessor.CONTRACTIONS.items(), *EvalAIAnswerProcessor.NUMBER_MAP.items()]
    tens += [(word, [becomes] * 4) for word, becomes in words]
    yield (
        "vqa",
        text_vectors(
            tens,
            lambda s, a: float(
                textvqa_process_results({"answers": list(a), "question_id": 0}, [s])["exact_match"]
            ),
        ),
    )
    yield (
        "rouge_l",
        text_vectors(pairs, lambda s, a: float(rouge_l.score_multi(a, s)["rougeL"].fmeasure)),
    )


def mile(judge):
    """Return the vectors of MileBench's metrics."""
    pairs = [
        (said, [answer for answer in answers if judge.process(answer)])
        for said, answers in CASES["texts"] + list(random_pairs(150, 2))
    ]
    pairs = [(said, answers) for said, answers in pairs if answers]

    def rouge_l(said, answer):
        told, gold = judge.process(said), judge.process(answer)
        return Rouge().get_scores(told, gold)[0]["rouge-l"]["f"] if told.strip(".") else 0.0

    yield (
        "milebench_rouge_l",
        text_vectors(
            [(s, [x for x in a if judge.process(x).strip(".")] or ["cat"]) for s, a in pairs],
            lambda s, a: best(rouge_l, s, a),
        ),
    )
    yield (
        "milebench_word",
        text_vectors(
            pairs,
            lambda s, a: best(lambda x, y: judge.process(y) in judge.process(x).split(), s, a),
        ),
    )
    yield (
        "milebench_part",
        text_vectors(
            pairs, lambda s, a: best(lambda x, y: judge.process(y) in judge.process(x), s, a)
        ),
    )
    rows = []
    for options in CASES["options"]:
        for said in CASES["choices"]:
            for answer in options:
                sample = {"sample_id": 0, "gt_response": answer, "pred_response": said}
                sample["choice_list"] = list(options)
                judge.process_sample(sample)
                score = float(judge.judge_multi_choice(sample))
                facts = {"options": options}
                rows.append({"said": said, "answers": [answer], "facts": facts, "score": score})
    yield "milebench_options", rows


def screen():
    """Return the vectors of points and boxes."""
    rows, thousandths = [], []
    for box, width, height in CASES["regions"]:
        facts = {"bbox": box, "width": width, "height": height}
        for said in CASES["points"]:
            row = {"bbox": list(box), "image_width": width, "image_height": height}
            told = screenspot_v2_process_results(row, [said])["screenspot_v2_action_acc"]
            rows.append(
                {"said": said, "answers": [], "facts": facts, "score": float(told["correct"])}
            )
        if max(box) <= 1:
            for said in CASES["boxes"]:
                hit = compute_center_accuracy(box, parse_float_sequence_within(said))
                thousandths.append(
                    {"said": said, "answers": [], "facts": facts, "score": float(hit)}
                )
    yield "box_hit", rows
    yield "box_hit_1000", thousandths


def main():
    """Write one file for each metric."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--milebench", required=True, help="MileBench's evaluate.py")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    used = ", ".join(f"{name} {version(name)}" for name in ("lmms-eval", "rouge-score", "rouge"))
    made = f"scripts/metric_vectors.py ran the formulas of {used} and MileBench's evaluate.py"
    for vectors in (strings(), mile(milebench(given.milebench)), screen()):
        for name, rows in vectors:
            lines = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
            text = f'{{"made": {json.dumps(made)}, "vectors": [\n{lines}\n]}}\n'
            (given.folder / f"{name}.json").write_text(text)


if __name__ == "__main__":
    main()
