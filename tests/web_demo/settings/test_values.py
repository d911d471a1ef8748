"""The values of the settings, without a page."""

import json

from tests.web_demo.conftest import in_node, wants_node

pytestmark = wants_node


async def says(body):
    return await in_node("settings/values.js", body)


async def test_values_that_are_none_any_more_are_as_on_a_first_visit():
    kept = {
        "temperature": 9,
        "max_tokens": "many",
        "seed": 7,
        "form": "haiku",
        "tool_choice": "=multiply",
        "calculator": 1,
        "system": "Be brief.",
        "top_p": None,
        "top_k": 2.5,
        "texts": {"regex": "[a-z]+", "lark": 3, "other": "x"},
        "unknown": True,
    }
    restored, usual, nothing = await says(
        f"""
        const same = JSON.stringify(m.restored(null)) === JSON.stringify(m.usual());
        console.log(JSON.stringify([m.restored({json.dumps(kept)}), m.usual(), same]));
        """
    )
    expected = {"seed": 7, "tool_choice": "=multiply", "system": "Be brief."}
    assert restored == usual | expected | {"texts": {"regex": "[a-z]+"}}
    assert nothing


async def test_options_are_held_to_what_the_server_and_the_model_offer():
    plain, held, chips = await says(
        """
        const model = { id: "tiny", tools: false, thinking: false };
        const offer = { model, longest: 100, several: true };
        const values = m.restored({ ...m.usual(), thinking: "yes", max_reasoning_tokens: 5,
            calculator: true, answers: "3", tool_choice: "required", stop: "a\\\\n\\nb" });
        const some = [m.optionsOf(m.usual(), []), m.optionsOf(values, [], offer)];
        console.log(JSON.stringify([...some, m.changed(values, offer)]));
        """
    )
    assert plain == {"temperature": 0.7, "max_tokens": 1024}
    assert held == {
        "temperature": 0.7,
        "max_tokens": 100,
        "stop": ["a\n", "b"],
        "n": 3,
        "model": "tiny",
    }
    idle = {chip["id"]: chip["idle"] for chip in chips}
    assert idle["calculator"] == "This model can't call tools."
    assert idle["thinking"] == "This model can't think aloud."
    assert idle["answers"] == ""


async def test_a_preset_is_recognised_and_resets_what_another_one_has_set():
    names, values = await says(
        """
        const data = m.withPreset(m.usual(), { temperature: 0, form: "json_object" });
        const precise = m.withPreset({ ...data, seed: 3 }, { temperature: 0 });
        const names = [m.usual(), data, precise, { ...m.usual(), temperature: 0.3 }].map((one) =>
            m.presetOf(one));
        console.log(JSON.stringify([names, [precise.form, precise.seed]]));
        """
    )
    assert names == ["Balanced", "Data", "Precise", None]
    assert values == ["text", 3]


async def test_numbers_are_checked_as_they_are_typed():
    said = await says(
        """
        const wrong = (setting, text) =>
            m.wrongNumber(setting, text, { ...m.ANYTHING, longest: 2000 });
        const longest = { id: "max_tokens", kind: "number", least: 1, most: 9000, step: 1 };
        const seed = { id: "seed", kind: "maybe", least: 0, most: 99, step: 1 };
        const share = { id: "top_p", kind: "maybe", least: 0.05, most: 1, step: 0.05 };
        console.log(JSON.stringify([wrong(longest, "4000"), wrong(longest, ""), wrong(seed, "1.5"),
            wrong(seed, ""), wrong(share, "0.93"), wrong(share, "x")]));
        """
    )
    assert said == [
        "from 1 to 2,000, which this server allows",
        "give a number",
        "a whole number",
        "",
        "",
        "give a number",
    ]
