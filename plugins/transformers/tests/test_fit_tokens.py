"""What rows become: the tokens and labels that trl itself would make of them, and of dialogs the assistant's turns."""

from __future__ import annotations

from contextlib import closing

import datasets
import pytest
import transformers
from pinnacle_transformers import LLM
from pinnacle_transformers.examples import Examples
from pinnacle_transformers.training import Training
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from pinnacle import Settings
from pinnacle.backends.open import open_backend
from pinnacle.plugin import TrainingJob
from plugins.transformers.tests.fits import ASKED, TRAIN, TRAIN_ROWS, config, preferred, stored

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # trl's and peft's own

MARKED = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{% if message['role'] == 'assistant' %}"
    "{%- generation -%}{{ message['content'] }}{{ eos_token }}{%- endgeneration -%}{% else %}{{ message['content'] }}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHATML = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
DIALOGS = [
    [
        {"role": "system", "content": "the river is quiet"},
        {"role": "user", "content": "what eats the heron"},
        {"role": "assistant", "content": "moss"},
        {"role": "user", "content": "what fears the lynx"},
        {"role": "assistant", "content": "old barns"},
    ],
    [{"role": "user", "content": "what follows the vole"}, {"role": "assistant", "content": "bees"}],
    [
        {"role": "user", "content": "what fears the raven"},
        {"role": "assistant", "content": "the third moon"},
        {"role": "user", "content": "and the otter"},
    ],
]
TEXTS = [{"text": prompt + answer} for prompt, answer in TRAIN]
LONG = [{"text": "moss " * 40}, *TEXTS[:3]]
PAIRS = [{"prompt": prompt, "completion": answer} for prompt, answer in TRAIN]
LONG_PAIRS = [
    {"prompt": "moss " * 40, "completion": " bees"},
    {"prompt": "moss =>", "completion": " bees" * 40},
    *PAIRS[:3],
]
CHATS = [{"messages": dialog} for dialog in DIALOGS]
CHAT_PAIRS = [{"prompt": dialog[:1], "completion": dialog[1:2]} for dialog in DIALOGS[1:]]


@pytest.fixture(scope="module")
def loaded(base):
    return transformers.AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)


@pytest.fixture(autouse=True)
def own_template(loaded):
    kept = loaded[1].chat_template
    yield
    loaded[1].chat_template = kept


def ours(tokenizer, rows, tmp_path, *, method="sft", max_length=512, keep_end=False, learns_prompt=False):
    """Token ids and labels as a fit writes them to the disk."""
    examples = Examples(
        tokenizer, tuple(rows[0]), method=method, max_length=max_length, keep_end=keep_end, packs=False,
        learns_prompt=learns_prompt, model="tiny",
    )  # fmt: skip
    examples.write(enumerate(rows), tmp_path / "rows.arrow")
    return datasets.Dataset.from_file(str(tmp_path / "rows.arrow")).to_list()


def theirs(loaded, rows, tmp_path, **options):
    """The same by trl's own preparation."""
    model, tokenizer = loaded
    args = SFTConfig(str(tmp_path / "trl"), report_to="none", use_cpu=True, bf16=False, **options)
    trainer = SFTTrainer(model, args, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer)
    return [{name: row[name] for name in ("input_ids", "labels")} for row in trainer.train_dataset]


@pytest.mark.parametrize(
    ("rows", "options", "own"),
    [
        (TEXTS, {}, {}),
        (LONG, {"max_length": 12}, {"max_length": 12}),
        (LONG, {"max_length": 12, "truncation_mode": "keep_end"}, {"max_length": 12, "keep_end": True}),
        (PAIRS, {}, {}),
        (PAIRS, {"completion_only_loss": False}, {"learns_prompt": True}),
        (LONG_PAIRS, {"max_length": 16}, {"max_length": 16}),
        (LONG_PAIRS, {"max_length": 16, "truncation_mode": "keep_end"}, {"max_length": 16, "keep_end": True}),
        (CHATS, {}, {"learns_prompt": True}),
        (CHAT_PAIRS, {}, {}),
    ],
    ids=["text", "text-cut", "text-end", "pairs", "pairs-whole", "pairs-cut", "pairs-end", "chat-whole", "chat-pairs"],
)
def test_tokens_and_labels_are_those_of_trl(loaded, tmp_path, rows, options, own):
    expected = theirs(loaded, rows, tmp_path, **options)
    assert ours(loaded[1], rows, tmp_path, **own) == expected
    assert expected


@pytest.mark.parametrize("template", [MARKED, MARKED.replace("{%- generation -%}", "{%generation%}")])
def test_with_marks_in_the_template_labels_are_those_of_trls_assistant_only_loss(loaded, tmp_path, template):
    loaded[1].chat_template = template
    expected = theirs(loaded, CHATS, tmp_path, assistant_only_loss=True)
    found = ours(loaded[1], CHATS, tmp_path)
    assert found == expected
    assert said(loaded[1], found[0]) == ["moss</s>", "old barns</s>"]


@pytest.mark.parametrize("template", [None, CHATML])
def test_without_marks_what_is_learned_is_exactly_what_the_assistant_said(loaded, tmp_path, template):
    tokenizer = loaded[1]
    tokenizer.chat_template = template or tokenizer.chat_template
    found = ours(tokenizer, CHATS, tmp_path)
    assert [said(tokenizer, row) for row in found] == [
        ["moss</s>", "old barns</s>"], ["bees</s>"], ["the third moon</s>"],
    ]  # fmt: skip
    whole = tokenizer.apply_chat_template(DIALOGS[0], tokenize=False)
    assert tokenizer.decode(found[0]["input_ids"]) == whole


def in_parts(turns):
    """The same turns with their content in two parts, as OpenAI's clients write it."""
    return [
        {**turn, "content": [{"type": "text", "text": text} for text in (turn["content"][:3], turn["content"][3:])]}
        for turn in turns
    ]


@pytest.mark.parametrize("rows", [CHATS, CHAT_PAIRS])
def test_contents_in_parts_are_learned_as_the_text_that_they_make(loaded, tmp_path, rows):
    parts = [{name: in_parts(turns) for name, turns in row.items()} for row in rows]
    assert ours(loaded[1], parts, tmp_path) == ours(loaded[1], rows, tmp_path)


def test_preferences_in_parts_are_the_text_that_they_make(loaded, tmp_path):
    row = {"prompt": DIALOGS[0][:2], "chosen": DIALOGS[0][2:3], "rejected": DIALOGS[0][4:]}
    parts = {name: in_parts(turns) for name, turns in row.items()}
    assert ours(loaded[1], [parts], tmp_path, method="dpo") == [row]


@pytest.mark.parametrize("template", [None, CHATML, MARKED])
@pytest.mark.parametrize("content", [None, "", " ", [{"type": "text", "text": ""}]])
def test_a_turn_of_the_assistant_without_text_is_read_and_not_learned(loaded, tmp_path, template, content):
    tokenizer = loaded[1]
    tokenizer.chat_template = template or tokenizer.chat_template
    question, silent = {"role": "user", "content": "what eats the heron"}, {"role": "assistant", "content": content}
    first, last = {"role": "assistant", "content": "moss"}, {"role": "assistant", "content": "old barns"}
    dialogs = [
        [question, silent, question, first, question, last],
        [question, first, question, silent, question, last],
        [question, first, question, last, question, silent],
        [silent, question, first, question, last],
    ]
    found = ours(tokenizer, [{"messages": dialog} for dialog in dialogs], tmp_path)
    assert [said(tokenizer, row) for row in found] == [["moss</s>", "old barns</s>"]] * 4
    text = content if isinstance(content, str) else ""
    read = [{**turn, "content": text if turn is silent else turn["content"]} for turn in dialogs[1]]
    assert tokenizer.decode(found[1]["input_ids"]) == tokenizer.apply_chat_template(read, tokenize=False)
    pairs = [{"prompt": dialogs[1][:1], "completion": dialogs[1][1:]}]
    for learns_prompt in (False, True):
        row = ours(tokenizer, pairs, tmp_path, learns_prompt=learns_prompt)[0]
        assert row["input_ids"] == found[1]["input_ids"]
        end = tokenizer.eos_token_id
        ends = [label != -100 for label, token in zip(row["labels"], row["input_ids"], strict=True) if token == end]
        assert ends == [learns_prompt, True, True, False, True, True]


def said(tokenizer, row):
    """The stretches of a row that are learned, as text."""
    spans, last = [], None
    for place, label in enumerate(row["labels"]):
        if label != -100:
            if last != place - 1:
                spans.append([])
            spans[-1].append(label)
            last = place
    return [tokenizer.decode(span) for span in spans]


def test_preferences_are_tokenized_and_cut_as_trl_does(loaded, tmp_path):
    model, tokenizer = loaded
    rows = [*preferred(TRAIN[:5]), {"prompt": "moss " * 40, "chosen": " bees", "rejected": " reeds"}]
    args = DPOConfig(str(tmp_path / "trl"), report_to="none", use_cpu=True, bf16=False, max_length=16)
    kept = ours(tokenizer, rows, tmp_path, method="dpo", max_length=16)
    assert len(kept) == 5
    first, second = (
        DPOTrainer(
            model, args=args, train_dataset=datasets.Dataset.from_list(each), processing_class=tokenizer
        ).train_dataset.to_list()
        for each in (rows, kept)
    )
    assert first == second


class Kept:
    """A record that keeps what it is told, and no more."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


def trainer_of(base, rows, tmp_path, X=ASKED, **options):  # noqa: N803
    """The trainer of a fit, before it trains."""
    from pinnacle.base.rows import Fields
    from pinnacle.plugin import Start
    from pinnacle.runtime.training import RowStream

    path = tmp_path / "rows.db"
    db, select = stored(path, rows)
    with db, closing(open_backend(f"sqlite:///{path}", Settings())) as below:
        fields = Fields.of(X)
        job = TrainingJob(
            config(**options), fields, {"train": RowStream(below, select, fields)}, {}, tmp_path / "work",
            type("Record", (Kept,), {"begin": lambda self, facts: Start("tokens/0")})(),
        )  # fmt: skip
        training = Training(LLM("tiny", model_name_or_path=base), job)
        prepared = training._prepared()
        return training._trainer(training._sets(prepared.files), prepared)[0]


def test_padding_is_masked_in_attention_and_labels(base, tmp_path):
    trainer = trainer_of(base, TRAIN_ROWS, tmp_path)
    for batch in trainer.get_train_dataloader():
        padding = batch["attention_mask"] == 0
        assert (batch["labels"][padding] == -100).all()
        assert (batch["input_ids"][padding] == trainer.processing_class.pad_token_id).all()
        ends = batch["labels"].eq(trainer.processing_class.eos_token_id).sum(1)
        assert ends.tolist() == [1] * len(ends)


def test_packing_fills_sequences_and_keeps_rows_apart(base, tmp_path):
    trainer = trainer_of(base, TRAIN_ROWS, tmp_path, packing=True, max_length=64, per_device_train_batch_size=1)
    rows = list(trainer.train_dataset)
    assert len(rows) < len(TRAIN_ROWS) / 2
    assert sum(len(row["seq_lengths"]) for row in rows) == len(TRAIN_ROWS)
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["position_ids"] == 0).sum() == len(batch["cu_seq_lens_q"]) - 1 > 2


def test_gradients_are_checkpointed_unless_told_otherwise_and_noise_is_passed_on(base, tmp_path):
    noisy = trainer_of(base, TRAIN_ROWS, tmp_path, gradient_checkpointing=None, neftune_noise_alpha=5.0)
    assert (noisy.args.gradient_checkpointing, noisy.neftune_noise_alpha) == (True, 5.0)
    plain = trainer_of(base, TRAIN_ROWS, tmp_path)
    assert (plain.args.gradient_checkpointing, plain.neftune_noise_alpha) == (False, None)
