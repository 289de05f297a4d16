"""Files of class names, and names on a command line."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfl_edge.annotations.class_names import check_class_names, name_problem, parse_class_names, read_class_names
from gfl_edge.errors import AnnotationError

THREE = ("traffic light", "dog", "cat, small")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.txt", "traffic light\ndog\ncat, small\n\n\n"),
        ("obj.names", "traffic light  \r\n dog\t\r\ncat, small"),
        ("n.txt", "traffic light\n\ufeffdog\n\ufeff cat, small"),  # joined from files with marks
        ("n.txt", "traffic light\rdog\rcat, small\r"),
        ("n.txt", "\ufeff# classes\ntraffic light\n## barks\ndog\n#\ncat, small\n"),
        ("n.yaml", "nc: 3\nnames: ['traffic light', dog, \"cat, small\"]\n"),
        ("n.yaml", "\ufeffnames: [traffic light,\n  dog,  # barks\n  'cat, small',\n]\nother: [1, 2]\n"),
        ("n.yml", "path: x\nnames:\n  0: traffic light\n  1: dog  # barks\n  2: 'cat, small'\nval: images\n"),
        ("n.yml", "names:\n- traffic light\n- dog\n\n- cat, small\nval: images\n"),
        ("n.yml", 'names:\n    - traffic light\n    - dog\n    - "cat, small"\n'),
        ("n.yaml", "names: {0: traffic light, 1: dog, 2: 'cat, small'}\n"),
        ("n.yaml", "names:\n  2: cat, small\n  '1': dog\n  0: traffic light\nnc: '3'\n"),
        ("n.yaml", "---\nnc:  # to be counted\nnames: &names [traffic light, dog, 'cat, small']\nold: *names\n"),
        ("n.yaml", "first: &x traffic light\nnames:\n- *x\n- !!str dog\n- >-\n  cat,\n  small\n"),
        ("n.yaml", "- traffic light\n- dog\n- cat, small\n"),
        ("n.json", '{"names": ["traffic light", "dog", "cat, small"], "nc": 3}'),
        (
            "n.YAML",
            "path: ../datasets\ntrain: [a, b]\ndownload: |\n  names: none\nnames: [traffic light, dog, 'cat, small']",
        ),
    ],
)
def test_class_names(tmp_path, name, text):
    if not name.endswith((".txt", ".names")):
        pytest.importorskip("yaml")
    (tmp_path / name).write_bytes(text.encode())
    assert read_class_names(tmp_path / name) == THREE
    (tmp_path / name).write_bytes(text.removeprefix("\ufeff").encode("utf-16"))
    assert read_class_names(tmp_path / name) == THREE


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (r'names: ["caf\xE9", "\u4eba"]', ("café", "人")),
        ("names:\n  0: C#\n  1: 'x #1'\n", ("C#", "x #1")),
        ("names: ['driver''s', 'bolt [M4]', \"{a}\"]", ("driver's", "bolt [M4]", "{a}")),
        ("names: [yes, 1, null, 2024-01-01, 1e3, ~]", ("yes", "1", "null", "2024-01-01", "1e3", "~")),
        ("names: [😀, را\u200cر]", ("😀", "را\u200cر")),  # a joiner is part of Persian words
        ("names: !!python/object/apply:os.system [ls]", ("ls",)),  # tags are not looked at
    ],
)
def test_names_in_yaml_are_text_as_it_is_written(tmp_path, text, names):
    pytest.importorskip("yaml")
    (tmp_path / "n.yaml").write_text(text)
    assert read_class_names(tmp_path / "n.yaml") == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 3\n", "the entry 'names' is missing"),
        ("", "the entry 'names' is missing|holds no class names"),
        ("names:\nnc: 3\n", "nc is 3, but there are 0 names"),
        ("names: []\n", "holds no class names"),
        ("names: classes.txt", r"'names' is 'classes\.txt'\. Expected a list"),
        ("nc: 80\nnames: [a, b]\n", "nc is 80, but there are 2 names"),
        ("nc: [1]\nnames: [a]\n", "line 1: expected a name, found a list"),
        ("names: [a, b, a]\n", r"n\.yaml, line 1: the class 'a' comes twice, first in line 1"),
        ("names:\n- a\n- \n- c\n", r"line 3: an empty class name"),
        ("names:\n- a\n- '  '\n", r"line 3: an empty class name"),
        ("names:\n- a\n- b: c\n", r"line 3: expected a name, found a list or mapping"),
        ("names:\n- a\n- |\n  b\n  c\n", r"line 3: 'b\\nc' is no class name"),
        ('names: ["a\\0b"]\n', r"is no class name"),
        ("names:\n  0: a\n  2: b\n", r"numbered \[0, 2\], without 1"),
        ("names:\n  1: a\n  2: b\n", r"numbered \[1, 2\], without 0"),
        ("names:\n  0: a\n  0: b\n", r"line 3: the class number 0 comes twice"),
        ("names:\n  a: 0\n  b: 1\n", r"line 2: 'a' is no class number"),
        ("names: [a]\nnc: 1\nnames: [b]\n", r"line 3: another entry 'names', the first is line 1"),
        ("names:\n\t- a\n", r"n\.yaml, line 2 is no YAML: found character"),
        ("names: [a\n", r"is no YAML"),
        ("names: [a]\n---\nnames: [b]\n", r"is no YAML: but found another document"),
        ('names: ["\ufeffa"]', r"line 1: '\\ufeffa' is no class name"),
        ("names: [*a]\n", r"is no YAML: found undefined alias"),
        ("[" * 20000, "is no YAML: maximum recursion"),
        ("x: &x [*x]\nnames: [*x]\n", "expected a name, found a list"),
        ("a" * 2_000_000, "has 2000000 characters"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, message):
    pytest.importorskip("yaml")
    (tmp_path / "n.yaml").write_text(text)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_class_names(tmp_path / "n.yaml")
    assert str(caught.value).startswith(str(tmp_path / "n.yaml"))
    assert "\n" not in str(caught.value)


def test_a_yaml_bomb_is_neither_expanded_nor_written_out(tmp_path):
    pytest.importorskip("yaml")
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 30))
    (tmp_path / "n.yaml").write_text(f"l0: &l0 [lol]\n{levels}names: *l29\n")
    start = time.perf_counter()
    with pytest.raises(AnnotationError, match="found a list") as caught:
        read_class_names(tmp_path / "n.yaml")
    assert len(str(caught.value)) < 500
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"person\n\ndog\n", "line 2: an empty class name, which would leave its number without one"),
        (b"\nperson\n", "line 1: an empty class name"),
        (b"person\ndog\n person \n", "line 3: the class 'person' comes twice, first in line 1"),
        (b"#person\ndog\n", "line 1: '#person' may be a comment or a name"),
        (b"\n\n", "holds no class names"),
        (b"# nothing\n", "holds no class names"),
        ("café".encode("latin-1"), "line 1: the byte 0xe9 is not UTF-8"),
    ],
)
def test_text_that_is_refused(tmp_path, content, message):
    (tmp_path / "obj.names").write_bytes(content)
    with pytest.raises(AnnotationError, match=message):
        read_class_names(tmp_path / "obj.names")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(1 << 40)  # all of it a hole
    with pytest.raises(AnnotationError, match="it is larger than the 16777216 bytes that such a file may have"):
        read_class_names(tmp_path / "huge.txt")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_class_names(tmp_path / "none.txt")


def test_names_or_a_file_on_the_command_line(tmp_path):
    path = tmp_path / "my classes"
    path.write_text("red cell\nwhite cell\n\n")
    assert parse_class_names(str(path)) == ("red cell", "white cell")
    assert parse_class_names("a, b") == ("a", "b")
    assert parse_class_names("person") == ("person",)
    many = [f"class number {number}" for number in range(80)]
    assert parse_class_names(",".join(many)) == tuple(many)  # longer than any path


def test_a_name_that_a_folder_has_too(tmp_path, monkeypatch):
    """Images are often sorted into folders by class."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "person").mkdir()
    assert parse_class_names("person", known=True) == ("person",)
    for text, known in (("person", False), ("./person", True), (str(tmp_path), True)):
        with pytest.raises(AnnotationError, match="is a folder"):
            parse_class_names(text, known=known)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name 1: an empty class name"),
        ("a,,b", "class names, name 2: an empty class name"),
        ("a,b,a", "name 3: the class 'a' comes twice, first in name 1"),
        ("none.txt", "no such file of class names"),
        ("data.YAML", "no such file of class names"),
        (".", "is a folder"),
        ("a\0b", "is no class name"),
        ("cat,../../x", "name 2: '../../x' is no class name: it is a path, expected a name"),
        ("/etc/passwd,cat", "name 1: '/etc/passwd' is no class name: it is a path"),
        ("C:\\x,cat", "is no class name: it is a path"),
        ("cat," + "x" * 201, "it has 201 characters, expected 200 at most"),
    ],
)
def test_names_on_the_command_line_that_are_refused(text, message):
    with pytest.raises(AnnotationError, match=message):
        parse_class_names(text)


TEXTS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)
NAMES = st.lists(TEXTS.filter(lambda name: not name_problem(name)), min_size=1, max_size=8, unique=True)


@given(NAMES)
def test_what_pyyaml_writes_is_read_back(tmp_path_factory, names):
    yaml = pytest.importorskip("yaml")
    path = tmp_path_factory.mktemp("yaml") / "data.yaml"
    for value in (names, dict(enumerate(names))):
        for flow in (False, True):
            for unicode in (False, True):
                options = {"default_flow_style": flow, "allow_unicode": unicode}
                text = yaml.safe_dump({"nc": len(names), "names": value}, **options)
                path.write_text(text, encoding="utf-8")
                assert read_class_names(path) == tuple(names)


@given(st.one_of(st.binary(max_size=80), st.text("names:[]{}&*#-'\"\n\t 01ab").map(str.encode)))
def test_any_file_gives_names_or_one_error(tmp_path_factory, content):
    pytest.importorskip("yaml")
    folder = tmp_path_factory.mktemp("any")
    for name in ("a.txt", "a.yaml"):
        (folder / name).write_bytes(content)
        try:
            names = read_class_names(folder / name)
        except AnnotationError as error:
            names, message = (), str(error)
        assert names or message.startswith(str(folder / name))
        assert check_class_names([(found, "") for found in names], "") == names
