"""The page as a browser gets it: answers, mistakes, and audio in parts."""

import html
import os
import re
import shutil

import numpy as np
import pytest
from fastapi.testclient import TestClient

from muq_plugins.inference.index.search import MusicIndex
from muq_plugins.inference.index.update import update_index
from muq_plugins.inference.web import make_app
from tests.unit.inference.tones import LONGEST, ToneModel, write_tone

TONES = {"a": 220, "b": 440, "c": 880}


@pytest.fixture
def music(tmp_path):
    for name, pitch in TONES.items():
        write_tone(tmp_path / "music" / f"{name}.wav", pitch)
    return tmp_path / "music"


@pytest.fixture
def index(tmp_path, music):
    update_index(tmp_path / "index", music, ToneModel(), "results/tones")
    return MusicIndex(tmp_path / "index")


@pytest.fixture
def client(index):
    return client_of(make_app(index, ToneModel(), top=2))


def client_of(app, host="127.0.0.1"):
    # Older test clients cannot read an address of version 6 out of a base_url.
    return TestClient(app, headers={"host": f"{host}:8000"})


def names(response):
    """File names of the results, in order."""
    return re.findall(r'<h3 class="name">(.*?)</h3>', response.text)


def numbers(response):
    """Numbers of the audio of the results, in order."""
    return re.findall(r'<audio[^>]* src="/audio/(\d+)"', response.text)


def test_the_first_page(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "3 files, model results/tones" in page.text
    assert "The model was trained on:\npure tones." in page.text
    assert names(page) == [] and "autofocus" in page.text
    for name in TONES:
        assert f'<option value="{name}.wav"></option>' in page.text


def test_a_text(client):
    page = client.get("/", params={"q": "440 Hz"})
    assert names(page)[0] == "b.wav" and len(names(page)) == 2
    assert 'value="440 Hz"' in page.text
    score = float(re.search(r"<b>(.*?)</b>", page.text)[1])
    assert 0.5 < score <= 1
    assert "<title>440 Hz - Music search</title>" in page.text


def test_an_example(client):
    first = client.get("/", params={"q": "440"})
    number = numbers(first)[0]
    assert f'href="/?like={number}"' in first.text
    for query in ({"like": number}, {"file": "b.wav"}):
        page = client.get("/", params=query)
        assert sorted(names(page)) == ["a.wav", "c.wav"]
        assert "Most like b.wav" in page.text
        assert numbers(page)[0] == number  # the example itself, to compare with


@pytest.mark.parametrize("text", ["440 " * 2500, "🎻 440", "四 440 четыре", "440 <b>&"])
def test_long_and_mixed_texts(client, text):
    page = client.get("/", params={"q": text})
    assert names(page)[0] == "b.wav"
    assert f'value="{html.escape(text, quote=False)}"' in page.text
    # What the model leaves out is said on the page.
    assert ("The end of the text is left out." in page.text) == (len(text) > LONGEST)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"q": " "}, "The query is empty"),
        ({"file": ""}, "The name is empty"),
        ({"file": "nowhere.wav"}, "No indexed file is called nowhere.wav."),
        ({"like": 99}, "No indexed file has the number 99 any more"),
    ],
)
def test_mistakes_are_explained(client, query, message):
    page = client.get("/", params=query)
    assert page.status_code == 400
    assert message in re.search(r'role="alert">(.*?)</p>', page.text, re.S)[1]
    assert names(page) == []


@pytest.mark.parametrize("number", ["0", "-1", str(1 << 63), "x", "../../etc/passwd"])
def test_numbers_that_are_none(client, number):
    assert client.get("/", params={"like": number}).status_code == 422
    assert client.get(f"/audio/{number}").status_code in (404, 422)


def test_trouble_with_the_index_is_shown(client, index):
    index.store.path.write_bytes(b"x" * 5000)
    for path in ("/", "/?q=440", "/audio/1"):
        response = client.get(path)
        assert response.status_code == 500
        assert "music.sqlite is damaged" in response.text


def test_no_matches(tmp_path, client, index, music):
    for name in "ab":
        (music / f"{name}.wav").unlink()
    update_index(tmp_path / "index", music, ToneModel(), "results/tones")
    page = client.get("/", params={"file": "c.wav"})
    assert page.status_code == 200
    assert "No matches: the example" in page.text
    assert "1 file, model" in page.text


def test_new_files_are_found_while_it_is_served(tmp_path, client, music):
    write_tone(music / "deep" / "down" / "d.wav", 660)
    (music / "bad.wav").write_text("no audio")
    update_index(tmp_path / "index", music, ToneModel(), "results/tones")
    page = client.get("/", params={"q": "660"})
    assert names(page)[0] == "d.wav"
    assert '<p class="where">0:00 · deep/down</p>' in page.text
    assert "1 more could not be read" in page.text


def test_audio_comes_in_parts(client, index, music):
    content = (music / "a.wav").read_bytes()
    number = index.store.find(str(music / "a.wav")).id
    whole = client.get(f"/audio/{number}")
    assert whole.content == content
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.headers["accept-ranges"] == "bytes"
    part = client.get(f"/audio/{number}", headers={"Range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == content[100:200]
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    end = client.get(f"/audio/{number}", headers={"Range": "bytes=-50"})
    assert end.content == content[-50:]
    beyond = {"Range": f"bytes={len(content)}-"}
    assert client.get(f"/audio/{number}", headers=beyond).status_code == 416
    assert client.head(f"/audio/{number}").headers["content-length"] == str(
        len(content)
    )


def test_only_indexed_files_are_given_out(client, index, music, tmp_path):
    (tmp_path / "secret.wav").write_bytes(b"secret")
    for path in ("/audio/99", "/audio/../secret.wav", "/audio/%2e%2e%2fsecret.wav"):
        response = client.get(path)
        assert response.status_code in (404, 422) and b"secret" not in response.content
    # What has taken the place of an indexed file is another file.
    number = index.store.find(str(music / "a.wav")).id
    (music / "a.wav").unlink()
    os.symlink(tmp_path / "secret.wav", music / "a.wav")
    response = client.get(f"/audio/{number}")
    assert response.status_code == 410 and b"secret" not in response.content
    page = client.get("/", params={"q": "220"})
    assert number not in map(int, numbers(page))
    assert "has changed or gone since it was indexed" in page.text


def put(index, path):
    """What a stranger may have written into an index."""
    status = os.stat(path)
    name = str(path)
    index.store.put(name, status.st_size, status.st_mtime_ns, 1.0, np.ones(24))
    return index.store.find(name).id


def test_an_index_from_a_stranger_gives_out_no_other_files(
    client, index, music, tmp_path
):
    """Only audio, and only from where it says that it found its music."""
    secret = tmp_path / "secret.wav"
    write_tone(secret, 440)
    (music / "passwords.wav").write_text("root")
    (music / "link.wav").symlink_to("/etc/passwd")
    for path in (
        "/etc/passwd",
        secret,
        music / ".." / "secret.wav",
        music / "passwords.wav",
        music / "link.wav",
    ):
        response = client.get(f"/audio/{put(index, path)}")
        assert response.status_code == 403, path
        assert b"root" not in response.content
    new = write_tone(music / "deep" / "new.wav", 440)
    assert client.get(f"/audio/{put(index, new)}").status_code == 200


def test_an_index_that_knows_no_words(tmp_path, music):
    model = ToneModel(layer=3)
    update_index(tmp_path / "layer", music, model, "results/muq")
    client = client_of(make_app(MusicIndex(tmp_path / "layer"), None))
    page = client.get("/")
    assert "Describe the music" not in page.text and "<details open>" in page.text
    assert f"<code>{model.space().name}</code>" in page.text
    assert names(client.get("/", params={"file": "b.wav"}))
    page = client.get("/", params={"q": "440"})
    assert page.status_code == 400 and "which knows no words" in page.text


def test_names_are_text_and_never_markup(tmp_path, music):
    name = 'x"><script>alert(1)</script>'
    (music / "a.wav").rename(music / f"{name.replace('/', '')}.wav")
    (music / "b.wav").rename(music / os.fsdecode(b"caf\xe9.wav"))
    update_index(tmp_path / "index", music, ToneModel(), "results/tones")
    client = client_of(make_app(MusicIndex(tmp_path / "index"), ToneModel()))
    page = client.get("/", params={"q": "220 440"})
    assert "<script>alert" not in page.text
    assert "caf\ufffd.wav" in names(page)
    policy = page.headers["content-security-policy"]
    nonce = re.search(r'<script nonce="(.*?)">', page.text)[1]
    assert f"script-src 'nonce-{nonce}'" in policy and "default-src 'none'" in policy


def test_nothing_is_loaded_from_elsewhere(client):
    page = client.get("/", params={"q": "440"})
    assert "://" not in page.text
    assert client.get("/docs").status_code == 404  # it would load scripts
    assert client.get("/openapi.json").status_code == 404


def test_only_its_own_host_names(index):
    app = make_app(index, ToneModel())
    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert client_of(app, host).get("/").status_code == 200
    assert client_of(app, "music.example").get("/").status_code == 400
    everywhere = make_app(index, ToneModel(), host="0.0.0.0")
    assert client_of(everywhere, "music.example").get("/").status_code == 200


def test_other_sites_get_no_answers_and_no_audio(client, index, music):
    number = index.store.find(str(music / "a.wav")).id
    asked = ["/?q=440", "/?file=b.wav", f"/audio/{number}"]
    for path in asked:
        for site in ("same-origin", "none"):
            answer = client.get(path, headers={"Sec-Fetch-Site": site})
            assert answer.status_code == 200
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        answer = client.get(path, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403 and "Another site has asked" in answer.text
    # A link to the page is no harm.
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_a_folder_is_chosen_as_the_page_names_it(tmp_path, music):
    for name in (os.fsdecode(b"bad\xff"), "end "):
        (music / name).mkdir()
        (music / "a.wav").rename(music / name / "a.wav")
        update_index(tmp_path / "index", music, ToneModel(), "results/tones")
        client = client_of(make_app(MusicIndex(tmp_path / "index"), ToneModel()))
        page = client.get("/", params={"q": "440"}).text
        [folder] = re.findall(r'id="folders">\s*<option value="(.*?)">', page)
        page = client.get("/", params={"q": "440", "folder": folder})
        assert names(page) == ["a.wav"]
        assert f'name="folder" value="{folder}"' in page.text
        shutil.move(music / name / "a.wav", music / "a.wav")
        (music / name).rmdir()


def test_formats_that_browsers_do_not_play(tmp_path, music):
    write_tone(music / "e.aiff", 660)
    update_index(tmp_path / "index", music, ToneModel(), "results/tones")
    index = MusicIndex(tmp_path / "index")
    client = client_of(make_app(index, ToneModel(), top=1))
    page = client.get("/", params={"q": "660"})
    assert names(page) == ["e.aiff"] and numbers(page) == []
    number = index.store.find(str(music / "e.aiff")).id
    assert f'<a href="/audio/{number}" download="e.aiff">' in page.text
    assert client.get(f"/audio/{number}").headers["content-type"] == "audio/aiff"
