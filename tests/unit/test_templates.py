"""Prompt templates: literal text with named places, filled with values that are never looked into."""

from __future__ import annotations

import keyword
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinnacle import ConfigError
from pinnacle.llm.templates import Template
from tests.llms import recorder

names = st.text(string.ascii_lowercase + "_", min_size=1, max_size=8).filter(lambda name: not keyword.iskeyword(name))


def escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@given(st.lists(st.one_of(st.text(), names.map(lambda name: (name,))), max_size=8), st.data())
def test_a_template_is_its_literal_text_with_the_values_between(parts, data):
    parts = [*parts, ("input",)]
    used = sorted({part[0] for part in parts if isinstance(part, tuple)})
    values = {name: data.draw(st.text(), label=name) for name in used}
    template = Template("".join(escaped(part) if isinstance(part, str) else f"{{{part[0]}}}" for part in parts))
    assert template.names == set(used)
    assert template.fill(values) == "".join(part if isinstance(part, str) else values[part[0]] for part in parts)


@given(st.text())
def test_any_text_is_a_template_or_a_config_error(text):
    try:
        template = Template(text)
    except ConfigError:
        return
    assert "input" in template.names
    assert all(name.isidentifier() for name in template.names)


@given(st.text())
def test_the_default_template_gives_any_input_back(text):
    assert Template("{input}").fill({"input": text}) == text


def test_double_braces_are_braces():
    asked = recorder(prompt_template='Answer as {{"a": 1}}: {input}')
    asked.model.predict("x")
    assert asked.prompts == ['Answer as {"a": 1}: x']


@pytest.mark.parametrize("text", ["{input}", "{0}", "{", "}", "{{}}", "{input.__class__}", "%s", "{context}"])
def test_braces_in_the_data_stay_as_they_are(text):
    asked = recorder(prompt_template="{context} - {input} - {tone}")
    asked.model.predict(text, context=text, tone=text)
    assert asked.prompts == [f"{text} - {text} - {text}"]
    assert asked.sent == [{}]


@pytest.mark.parametrize(
    "place",
    ["{input.upper}", "{input.__class__.__mro__}", "{input[0]}", "{input!r}", "{input:>10}", "{input:{width}}", "{}",
     "{0}", "{ input }", "{input-x}"],
)  # fmt: skip
def test_a_place_that_reaches_into_a_value_is_refused_at_construction(place):
    with pytest.raises(ConfigError, match="plain name"):
        recorder(prompt_template=f"{{input}} {place}")


@pytest.mark.parametrize("template", ["{input", "input}", "{input} {", "{input} }", "{input!}"])
def test_a_single_brace_is_refused_with_how_to_write_it(template):
    with pytest.raises(ConfigError, match=r"\{\{ and \}\}"):
        recorder(prompt_template=template)


@pytest.mark.parametrize("template", ["", "Hello", "{context}", "{{input}}", "{Input}"])
def test_a_template_without_a_place_for_the_input_is_refused_at_construction(template):
    with pytest.raises(ConfigError, match=r"has no \{input\}"):
        recorder(prompt_template=template)


@pytest.mark.parametrize("template", [None, 1, b"{input}", ["{input}"]])
def test_a_template_is_text(template):
    with pytest.raises(ConfigError, match="prompt_template is text"):
        recorder(prompt_template=template)


def test_a_place_that_nothing_fills_is_named():
    asked = recorder(prompt_template="{input} in {lang}")
    with pytest.raises(ConfigError, match=r"has \{lang\}, and nothing was given for it"):
        asked.model.predict("x")
    assert asked.asked == []


def test_an_input_may_stand_at_several_places():
    asked = recorder(prompt_template="{input}{input} {tone}{tone}")
    asked.model.predict("a", tone="!")
    assert asked.prompts == ["aa !!"]
