"""Images and text files that go with a message on the demo page."""

import base64

import pytest

from provider import MLXProvider
from provider.inputs.files import MAX_FILE_BYTES
from provider.scripted import Say
from tests.support.servers import eventually, running
from tests.web_demo.conftest import (
    ANSWER,
    answered,
    ask,
    scripted_gateway,
    sent_by,
    settings_of,
    wait_for_text,
)

pytestmark = pytest.mark.browser

CHIPS = ".attached li"
WRONG = ".ask .wrong"
NOTES = b"\xef\xbb\xbf# Notes\nThe fox is named Zorvan.\n\n"


def picture(color, **options):
    return pytest.importorskip("tests.support.tiny_vision").picture(color, **options)


def file(name, data, mime=""):
    return {"name": name, "mimeType": mime, "buffer": data}


def png(name, color, **options):
    return file(name, picture(color, **options), "image/png")


async def attach(page, *files, chips=None):
    """Choose files as with the button, and wait until they are read."""
    await page.locator(".ask input[type=file]").first.set_input_files(list(files))
    if chips is not None:
        await page.locator(CHIPS).nth(chips - 1).wait_for()


def image_part(data):
    return {"type": "image", "data": base64.b64encode(data).decode()}


async def give(page, kind, name, data, mime, where=".pane"):
    """Let a page have a file pasted into it, or dropped."""
    await page.locator(where).first.evaluate(
        """(element, [kind, name, data, mime]) => {
            const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
            const given = new DataTransfer();
            given.items.add(new File([bytes], name, {type: mime}));
            const more = {bubbles: true, cancelable: true};
            element.dispatchEvent(kind === "paste"
                ? new ClipboardEvent("paste", {clipboardData: given, ...more})
                : new DragEvent(kind, {dataTransfer: given, ...more}));
        }""",
        [kind, name, base64.b64encode(data).decode(), mime],
    )


async def test_a_model_that_sees_is_shown_images_and_remembers_them(new_page, tmp_path):
    pytest.importorskip("mlx_vlm")
    from tests.support.tiny_vision import write_vision_model

    folder = write_vision_model(tmp_path / "qwen2_5_vl", "qwen2_5_vl")
    provider = MLXProvider({"model": str(folder)})
    red = picture("red")
    asked = [{"role": "user", "content": [image_part(red), {"type": "text", "text": "What?"}]}]
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.get_by_label("Creativity").fill("0")
            await settings.get_by_label("Longest answer").fill("12")
        await attach(page, png("red.png", "red"), png("blue.png", "blue"), chips=2)
        await page.get_by_role("button", name="Remove blue.png").click()
        first = await answered(page, "What?")
        assert await page.locator(CHIPS).count() == 0
        thumbnail = page.locator(".user canvas")
        assert await thumbnail.get_attribute("aria-label") == "red.png"
        assert await thumbnail.evaluate(
            "(one) => [...one.getContext('2d').getImageData(30, 40, 1, 1).data]"
        ) == [255, 0, 0, 255]
        said = await first.locator(".text").text_content()
        options = {"temperature": 0.0, "max_tokens": 12}
        whole = await provider.generate_async("", messages=asked, **options)
        assert said == whole.content
        assert said

        second = await answered(page, "And what else?")
        asked += [{"role": "assistant", "content": said}]
        asked += [{"role": "user", "content": "And what else?"}]
        assert sent_by(page)[1]["messages"] == asked
        whole = await provider.generate_async("", messages=asked, **options)
        assert await second.locator(".text").text_content() == whole.content
    await provider.aclose()


async def test_a_model_that_cannot_see_gets_no_picture_and_is_not_asked_again(new_page, embedded):
    async with running(embedded) as gateway:
        page = await new_page(gateway.url)
        # The server may not have told yet what its model is able to do.
        await page.route("**/v1/models", lambda route: route.abort())
        await page.reload()
        await attach(page, png("red.png", "red"), chips=1)
        await ask(page, "What is in this picture?")
        await wait_for_text(page, ".note", "this model reads text, not images")
        await wait_for_text(page, ".note", "It is left out of what the model reads next.")
        await page.unroute("**/v1/models")
        await answered(page, "Count from 3 to 9")
        assert sent_by(page)[1]["messages"] == [{"role": "user", "content": "Count from 3 to 9"}]
        await page.locator("#model-facts:not(:empty)").wait_for()  # the server has told it now
        await page.locator(".ask input[type=file]").set_input_files([png("blue.png", "blue")])
        said = "“blue.png” is a picture, and this model reads text only."
        await wait_for_text(page, ".ask .wrong", said)
        # What was refused comes back for a change, its picture too.
        await page.get_by_role("button", name="Edit").first.click()
        await page.locator(".edit").get_by_role("button", name="Remove the image").click()
        await page.get_by_label("Edit message").fill("Tell me a joke")
        await page.get_by_label("Edit message").press("Enter")
        await page.locator(".asked", has_text="Tell me a joke").wait_for()
        await eventually(lambda: len(sent_by(page)) == 3)
        assert sent_by(page)[2]["messages"] == [{"role": "user", "content": "Tell me a joke"}]


async def test_a_text_file_is_read_and_stays_in_the_conversation(new_page):
    async with scripted_gateway(Say("Zorvan")) as gateway:
        page = await new_page(gateway.url)
        await attach(page, file("notes.md", NOTES), png("red.png", "red"), chips=2)
        await answered(page, "What is the fox named?")
        assert await page.locator(".user .file").text_content() == "notes.md"
        await answered(page, "Again?")
        await page.get_by_role("button", name="Edit").first.click()
        await page.get_by_role("button", name="Remove notes.md").click()
        await page.get_by_label("Edit message").press("Enter")
        await eventually(lambda: len(gateway.provider.requests) == 3)
    first, second, third = (request.options["messages"] for request in gateway.provider.requests)
    parts = [
        image_part(picture("red")),
        {"type": "text", "text": "notes.md:\n# Notes\nThe fox is named Zorvan.\n\n"},
        {"type": "text", "text": "What is the fox named?"},
    ]
    assert first[0]["content"] == second[0]["content"] == parts
    assert [turn["content"] for turn in second[1:]] == ["Zorvan", "Again?"]
    assert [turn["content"] for turn in third] == [[parts[0], parts[2]]]


async def test_the_real_model_reads_a_text_file(new_page, embedded):
    question = "Count from 3 to 9"
    async with running(embedded) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.get_by_label("Creativity").fill("0")
            await settings.get_by_label("Longest answer").fill("40")
        await attach(page, file("notes.md", NOTES), chips=1)
        turn = await answered(page, question)
        whole = await embedded.generate_async(
            f"notes.md:\n# Notes\nThe fox is named Zorvan.\n\n{question}",
            temperature=0.0,
            max_tokens=40,
        )
        assert await turn.locator(".text").text_content() == whole.content


async def test_files_are_pasted_and_dropped(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        red = picture("red")
        await give(page, "paste", "image.png", red, "image/png", ".ask textarea")
        await page.locator(CHIPS).nth(0).wait_for()
        await give(page, "dragover", "b.txt", b"b", "text/plain", ".scroll")
        assert "dropping" in await page.locator(".pane").get_attribute("class")
        await give(page, "drop", "b.txt", b"b", "text/plain", ".scroll")
        await page.locator(CHIPS).nth(1).wait_for()
        assert "dropping" not in await page.locator(".pane").get_attribute("class")
        await page.get_by_role("button", name="Send").click()  # a message may be files alone
        await wait_for_text(page, ANSWER, "x")
    (request,) = gateway.provider.requests
    parts = [image_part(red), {"type": "text", "text": "b.txt:\nb\n\n"}]
    assert request.options["messages"][0]["content"] == parts


async def test_text_that_brings_a_picture_along_is_pasted_as_text(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        kept = await page.locator(".ask textarea").evaluate(
            """(element) => {
                const given = new DataTransfer();
                given.setData("text/plain", "a table");
                given.items.add(new File(["x"], "image.png", {type: "image/png"}));
                const more = {bubbles: true, cancelable: true};
                return element.dispatchEvent(
                    new ClipboardEvent("paste", {clipboardData: given, ...more}));
            }"""
        )
        assert kept, "the browser was not let paste it"
        assert await page.locator(CHIPS).count() == 0


async def test_the_button_opens_a_choice_of_files(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        async with page.expect_file_chooser() as choosing:
            await page.get_by_role("button", name="Attach").click()
        assert (await choosing.value).is_multiple()


BINARY = bytes(range(256))


REFUSED = [
    (file("a.bin", BINARY), "“a.bin” is neither a supported image nor UTF-8 text."),
    (file("a.txt", b"a\0b", "text/plain"), "“a.txt” is neither"),
    (file("a.mp3", b"a", "audio/mpeg"), "“a.mp3” is neither"),
    (file("a.tiff", b"a", "image/tiff"), "“a.tiff” is neither"),
    (file("a.png", b"no image", "image/png"), "“a.png” can't be read as an image."),
    (
        file("a.png", b"a" * 700_000, "image/png"),
        "“a.png” is too large: it has 684 kB, and this",
    ),
    (
        file("a.txt", b"a" * 900_000),
        "“a.txt” is too large: it has 879 kB, and this conversation",
    ),
]


async def test_what_cannot_be_sent_is_said_at_once(new_page):
    async with scripted_gateway(Say("x"), max_frame_bytes=900_000) as gateway:
        page = await new_page(gateway.url)
        for given, said in REFUSED:
            await attach(page, given)
            await wait_for_text(page, WRONG, said)
            assert await page.locator(CHIPS).count() == 0
            await answered(page, "Hi")
            assert await page.locator(WRONG).text_content() == ""


async def test_a_text_is_no_larger_than_the_gateway_takes_it_in_files(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        await attach(page, file("a.txt", b"a" * (MAX_FILE_BYTES + 1)))
        await wait_for_text(
            page, WRONG, "“a.txt” is too large: it has 1.0 MB, and a text file may have"
        )
        await attach(page, file("a.txt", b"a" * MAX_FILE_BYTES), chips=1)


async def test_what_the_conversation_has_already_counts_too(new_page):
    async with scripted_gateway(Say("x"), max_frame_bytes=300_000) as gateway:
        page = await new_page(gateway.url)
        await attach(page, file("a.txt", b"a" * 100_000), file("b.txt", b"b" * 150_000), chips=1)
        await wait_for_text(page, WRONG, "“b.txt” is too large: it has 146 kB")
        await answered(page, "Hi")
        await attach(page, file("b.txt", b"b" * 150_000))
        await wait_for_text(page, WRONG, "“b.txt” is too large: it has 146 kB")
        await ask(page, "c" * 150_000)
        await wait_for_text(page, WRONG, "larger than the gateway allows")
        await answered(page, "Well then")
        assert await page.locator("#state").get_attribute("data-state") == "open"
    assert len(gateway.provider.requests) == 2


async def test_a_folder_that_was_dropped_by_mistake_is_not_taken_whole(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        await attach(page, *[file(f"{n}.txt", b"a") for n in range(20)], chips=16)
        await wait_for_text(page, WRONG, "At most 16 files go with one message.")
        assert await page.locator(CHIPS).count() == 16


async def test_files_fit_at_any_width(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        wide = png("a very wide picture.png", "red", size=(2000, 60))
        await attach(page, wide, file("a" * 200 + ".txt", b"a"), chips=2)
        for selector in (CHIPS, ".user canvas, .user .file"):
            await page.locator(selector).nth(1).wait_for()
            for width in (360, 390, 1280):
                await page.set_viewport_size({"width": width, "height": 800})
                for one in await page.locator(selector).all():
                    box = await one.bounding_box()
                    assert box["x"] >= 0
                    assert box["x"] + box["width"] <= width
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
            await ask(page, "Hi")
