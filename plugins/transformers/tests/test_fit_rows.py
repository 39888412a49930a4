"""Rows that cannot be trained on: counted, or refused by their number, before any weights are loaded."""

from __future__ import annotations

import json
import logging
import re

import pytest
from pinnacle_transformers import training

from pinnacle import ConfigError, TrainingError
from plugins.transformers.tests.fits import ANSWERS, ASKED, TRAIN, fitted, preferred, stored

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # trl's and peft's own
GOOD = {"prompt": TRAIN[0][0], "completion": TRAIN[0][1]}
DIALOG = [{"role": "user", "content": "what eats the heron"}, {"role": "assistant", "content": "moss"}]
QUIET, JSON = DIALOG[:1], json.dumps(DIALOG)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
LONG = "moss " * 60


@pytest.fixture
def no_weights(monkeypatch):
    """Weights that are loaded fail the test."""
    monkeypatch.setattr(training, "load_weights", lambda *args: pytest.fail("weights were loaded"))


def counted(tmp_path, base, rows, X=ASKED, **options):  # noqa: N803
    db, select = stored(tmp_path / "rows.db", rows)
    with db:
        return fitted(db, select, base, "counted", X=X, max_steps=1, **options)[1]


def test_rows_that_are_empty_or_too_long_are_counted_and_said(base, tmp_path, caplog):
    empty = [{"prompt": "moss =>", "completion": answer} for answer in ("", "  ", None)]
    empty.append({"prompt": None, "completion": " bees"})
    long = [{"prompt": LONG, "completion": " bees"}, {"prompt": "moss =>", "completion": LONG}]
    with caplog.at_level(logging.WARNING):
        run = counted(tmp_path, base, [GOOD, *empty, *long, GOOD], max_length=32)
    assert run.rows == {"train": 3}
    assert run.left_out == {"empty": 4, "with a prompt that fills max_length": 1}
    assert run.cut == {"train": 2}
    assert "4 rows left out (empty)" in caplog.text
    assert "2 of train cut to max_length" in caplog.text


def test_dialogs_in_which_the_assistant_says_nothing_are_counted(base, tmp_path):
    silent = [[*QUIET, {"role": "assistant", "content": content}] for content in (None, "", " \n", [])]
    nothing = [{"role": role, "content": None} for role in ("user", "assistant")]
    rows = [{"messages": dialog} for dialog in (DIALOG, QUIET, [], *silent, nothing, DIALOG)]
    run = counted(tmp_path, base, [*rows, {"messages": None}], X="messages")
    assert run.rows == {"train": 2}
    assert run.left_out == {"without an answer of the assistant": 5, "empty": 3}


def test_completions_in_which_the_assistant_says_nothing_are_counted(base, tmp_path):
    silent = {"role": "assistant", "content": None}
    rows = [{"prompt": QUIET, "completion": answer} for answer in (DIALOG[1:], [silent], [silent, *QUIET])]
    run = counted(tmp_path, base, rows)
    assert run.rows == {"train": 1}
    assert run.left_out == {"without an answer of the assistant": 1, "empty": 1}


def test_preferences_are_counted_as_they_are_cut(base, tmp_path):
    kept = preferred(TRAIN[:3])
    long = [{**kept[0], "prompt": LONG}, {**kept[0], "chosen": LONG}]
    run = counted(tmp_path, base, [*kept, *long, {**kept[0], "rejected": ""}], X=ANSWERS, method="dpo", max_length=32)
    assert (run.rows, run.cut) == ({"train": 4}, {"train": 1})
    assert run.left_out == {"with a prompt that fills max_length": 1, "empty": 1}


def test_preferences_without_a_choice_are_counted(base, tmp_path):
    kept = preferred(TRAIN[:2])
    blank = [{**kept[0], name: text} for name in ("chosen", "rejected") for text in (" ", "\n\t", "", None)]
    equal = {**kept[0], "rejected": kept[0]["chosen"]}
    run = counted(tmp_path, base, [*kept, *blank, equal], X=ANSWERS, method="dpo")
    assert run.rows == {"train": 2}
    assert run.left_out == {"empty": 8, "with equal answers": 1}


def test_preferences_of_dialogs_without_a_choice_are_counted(base, tmp_path):
    kept = {"prompt": QUIET, "chosen": DIALOG[1:], "rejected": [{"role": "assistant", "content": "bees"}]}
    silent = {"role": "assistant", "content": None}
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "moss"}]}]
    other = [{"rejected": parts}, {"chosen": [silent]}, {"rejected": [silent, *QUIET]}]
    run = counted(tmp_path, base, [kept, *({**kept, **row} for row in other)], X=ANSWERS, method="dpo")
    assert run.rows == {"train": 1}
    assert run.left_out == {"with equal answers": 1, "empty": 1, "without an answer of the assistant": 1}


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("row", "option", "told"),
    [
        ({"text": "moss"}, "completion_only_loss", "of completions, and the row of key 1 has text"),
        ({"messages": DIALOG}, "completion_only_loss", "of completions, and the row of key 1 has messages"),
        ({"text": "moss"}, "assistant_only_loss", "of dialogs, and the row of key 1 is text"),
        ({"prompt": "moss", "completion": "fog"}, "assistant_only_loss", "of dialogs, and the row of key 1 is text"),
    ],
    ids=str,
)  # fmt: skip
def test_a_loss_that_the_rows_cannot_have_is_refused(base, tmp_path, row, option, told):
    with pytest.raises(ConfigError, match=f"{option}=True is {told}"):
        counted(tmp_path, base, [row], X=tuple(row) if len(row) > 1 else next(iter(row)), **{option: True})


@pytest.mark.usefixtures("no_weights")
def test_preferences_with_pictures_are_refused_by_their_key(base, tmp_path):
    row = {"prompt": [{"role": "user", "content": [IMAGE]}], "chosen": DIALOG[1:], "rejected": DIALOG[1:]}
    with pytest.raises(ConfigError, match=r"row of key 1 .* part of type 'image_url'"):
        counted(tmp_path, base, [row], X=ANSWERS, method="dpo")


def test_a_transform_makes_and_leaves_out_rows(base, tmp_path):
    def shaped(row):
        return None if "eats" in row["prompt"] else {"text": row["prompt"] + row["completion"]}

    rows = [{"prompt": prompt, "completion": answer} for prompt, answer in TRAIN[:20]]
    run = counted(tmp_path, base, rows, transform=shaped)
    eats = sum("eats" in row["prompt"] for row in rows)
    assert run.rows == {"train": 20 - eats}
    assert run.left_out == {"left out by transform": eats}


@pytest.mark.parametrize(
    ("rows", "X", "said"),
    [
        ([GOOD, {"prompt": "moss", "completion": 7}], ASKED, "row of key 2 has completion='?7"),
        (
            [{"messages": DIALOG}, {"messages": [{"role": "user"}]}],
            "messages",
            "row of key 2 .* dict with role",
        ),
        ([{"messages": DIALOG}, {"messages": ["hello"]}], "messages", "row of key 2 .* not 'hello'"),
        *(
            ([{"messages": DIALOG}, {"messages": [*QUIET, {"role": "assistant", "content": content}]}], "messages", why)
            for content, why in [
                (7, "row of key 2 .* not 7"),
                ({"text": "moss"}, "row of key 2 .* not {'text'"),
                ([{"type": "text", "text": "a"}, IMAGE], "row of key 2 .* part of type 'image_url'"),
                (["moss"], "row of key 2 .* part of type 'str'"),
                ([{"type": "text"}], "row of key 2 .* only text"),
            ]
        ),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_rows_of_the_wrong_type_are_refused_by_their_number(base, tmp_path, rows, X, said):  # noqa: N803
    def raw(row):
        return {**row, "completion": 7} if row.get("completion") == "7" else row

    with pytest.raises(ConfigError, match=said):
        counted(tmp_path, base, rows, X=X, transform=raw)


@pytest.mark.usefixtures("no_weights")
def test_preferences_of_two_forms_are_refused_by_their_number(base, tmp_path):
    kept = preferred(TRAIN[:2])

    def mixed(row):
        return {**row, "prompt": [{"role": "user", "content": "x"}]} if row["prompt"] == kept[1]["prompt"] else row

    with pytest.raises(ConfigError, match="row of key 2 is a dialog, and the rows before it are text"):
        counted(tmp_path, base, kept, X=ANSWERS, method="dpo", transform=mixed)


@pytest.mark.parametrize(
    ("row", "X", "transform", "remedy"),
    [
        ({"messages": JSON}, "messages", None, '{"messages": json.loads(row["messages"])}'),
        ({"chat": " \n" + JSON}, "chat", None, '{"messages": json.loads(row["chat"])}'),
        ({"a": JSON}, "a", lambda row: {"messages": row["a"]}, '{"messages": json.loads(row["messages"])}'),
        ({"a": JSON}, "a", lambda row: row["a"], '{"messages": json.loads(row["text"])}'),
        ({"prompt": "moss", "completion": JSON}, ASKED, None, '{**row, "completion": json.loads(row["completion"])}'),
        ({"q": JSON, "a": "moss"}, ("q", "a"), None, '{**row, "q": json.loads(row["q"])}'),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_dialogs_as_json_text_are_refused_with_the_transform_that_reads_them(base, tmp_path, row, X, transform, remedy):  # noqa: N803
    said = re.escape(f"row of key 1 has a dialog as JSON text: pass transform=lambda row: {remedy}")
    with pytest.raises(ConfigError, match=said):
        counted(tmp_path, base, [row], X=X, transform=transform)


def test_the_transform_that_a_refusal_names_reads_dialogs_as_json_text(base, tmp_path):
    pair = {"q": JSON, "a": "moss"}
    run = counted(tmp_path, base, [pair], X=("q", "a"), transform=lambda row: {**row, "q": json.loads(row["q"])})
    assert run.rows == {"train": 1}


def test_other_texts_in_brackets_are_texts(base, tmp_path):
    texts = [
        '[{"role": "user"}]',
        '[{"role": "user", "content": "moss"}',
        "[]",
        "[moss]",
        '["moss"]',
        '[{"role":' * 50_000,
        '[{"role": "user", "content": "moss"}, 3]',
    ]
    run = counted(tmp_path, base, [{"text": text} for text in texts], X="text", max_length=32)
    assert run.rows == {"train": len(texts)}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "moss", "completion": ""}] * 2, "no row of the query can be trained on \\(2 empty\\)"),
        ([], "it has none"),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_no_row_to_train_on_is_told_before_weights_are_loaded(base, tmp_path, rows, said):
    db, select = stored(tmp_path / "rows.db", [GOOD])
    with db:
        db.execute(select.get_final_froms()[0].delete())
        if rows:
            db.execute(select.get_final_froms()[0].insert(), rows)
        with pytest.raises(TrainingError, match=said):
            fitted(db, select, base, "none", max_steps=1)


@pytest.mark.usefixtures("no_weights")
def test_fields_that_make_no_form_are_refused(base, tmp_path):
    rows = [{"a": "x", "b": "y", "c": "z"}]
    with pytest.raises(ConfigError, match="row of key 1 gives a, b, c, and method='sft' trains on text or messages or"):
        counted(tmp_path, base, rows, X=("a", "b", "c"))
    with pytest.raises(ConfigError, match="trains on prompt, chosen, rejected"):
        counted(tmp_path, base, [], X=("a", "b"), method="dpo")
