import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from cliptide.__main__ import main
from cliptide.publishing.publish import Published
from cliptide.publishing.publish_run import PublishRun
from cliptide.terminal.paths import NewFile
from event_log.records import Delivery
from fakes.shards import create_index
from tests.cliptide.stub_query_service import StubQueryService, refusal
from tests.fixtures.refusing_brokers import sasl_broker

ROOT = Path(__file__).resolve().parent.parent.parent


NOBODY = "http://127.0.0.1:1"  # not the service that this machine may run


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner(env={"CLIPTIDE_QUERY_URL": NOBODY, **(env or {})}).invoke(main, list(arguments))


def summary(result: Result) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return fields


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")


def flags() -> list[Any]:
    return [
        pytest.param(name, command, flag, id=f"{name} {flag.opts[0]}")
        for name, command in commands(main)
        for flag in command.params
        if isinstance(flag, click.Option)
    ]


def help_text(name: str, width: int) -> str:
    """Return a command's help as a terminal of this width shows it. (click leaves two columns free.)"""
    return CliRunner().invoke(main, [*name.split(), "--help"], terminal_width=width - 2).stdout


def number_flags() -> list[Any]:
    number_types = (click.FloatRange, click.types.FloatParamType)
    return [one for one in flags() if isinstance(one.values[2].type, number_types)]


@pytest.mark.parametrize(("name", "command", "flag"), number_flags())
def test_a_number_that_is_none_is_refused_because_it_would_pass_every_bound(
    name: str, command: click.Command, flag: click.Option
) -> None:
    with pytest.raises(click.BadParameter, match="nan is not a finite number"):
        flag.type.convert("nan", flag, None)


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("group", ["", "snapshot", "mapping"])
def test_in_a_narrow_terminal_the_summary_of_each_command_is_one_whole_line(group: str, width: int) -> None:
    text = help_text(group, width)
    listed = text.partition("Commands:\n")[2].splitlines()
    number = sum(name.rpartition(" ")[0] == group for name, _ in commands(main))
    assert (len(listed), "..." in "".join(listed)) == (number, False)


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("name", [name for name, _ in commands(main) if name not in ("serve", "consume")])
def test_in_a_narrow_terminal_no_line_of_a_help_is_too_long(name: str, width: int) -> None:
    lines = help_text(name, width).splitlines()
    assert [line for line in lines if len(line) > width] == []


def test_the_list_of_commands_imports_none_of_them() -> None:
    heavy = "numpy, pydantic, rich, structlog, confluent_kafka, pyarrow, torch, aiohttp, urllib.request"
    asked = "import sys; sys.argv = ['cliptide', '--help']\nfrom cliptide.__main__ import main\n"
    code = f"{asked}try: main()\nfinally: sys.exit(str(set('{heavy}'.split(', ')) & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert found.stderr.strip() == "set()"
    assert "publish" in found.stdout


def complete(words: str) -> list[str]:
    """Return what bash offers when Tab is pressed after these words."""
    env = {
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "_CLIPTIDE_COMPLETE": "bash_complete",
    }
    found = CliRunner(env=env).invoke(main, [], prog_name="cliptide")
    return [line.partition(",")[2] for line in found.stdout.splitlines()]


def test_tab_completes_commands_and_flags() -> None:
    assert complete("cliptide de") == ["dead-letters", "delete", "demo"]
    assert complete("cliptide snapshot r") == ["repair", "restore", "rollback"]
    assert "--id-prefix" in complete("cliptide publish --id")


def test_bash_completes_after_the_documented_line(tmp_path: Path) -> None:
    program = tmp_path / "cliptide"
    start = "import sys; sys.argv[0] = 'cliptide'; from cliptide.__main__ import main; main()"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}" "$@"\n')
    program.chmod(0o755)
    [line] = re.findall(
        r'^eval ".*bash_source.*"$', (ROOT / "docs/command_line.md").read_text(), re.MULTILINE
    )
    press_tab = (
        'COMP_WORDS=(cliptide se); COMP_CWORD=1; _cliptide_completion cliptide; echo "${COMPREPLY[@]}"'
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = ["bash", "-c", f"{line}\n{press_tab}"]
    found = subprocess.run(script, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert found.stdout.split() == ["search", "serve"], found.stderr


@pytest.mark.parametrize("command", ["serve", "consume"])
def test_a_service_is_run_with_its_own_help_exit_codes_and_settings(command: str) -> None:
    helped = run(command, "--help")
    assert helped.exit_code == 0
    assert "SIGTERM" in helped.output
    refused = run(command, env={"CLIPTIDE_TOPIK": "x"})
    assert refused.exit_code == 2
    assert "CLIPTIDE_TOPIC" in refused.stderr
    assert run(command, "--no-such-flag").exit_code == 2


@pytest.mark.parametrize(("name", "command", "flag"), flags())
def test_every_flag_is_explained_and_names_its_variable(
    name: str, command: click.Command, flag: click.Option
) -> None:
    prefix = f"CLIPTIDE_{name.replace(' ', '_')}".upper()
    context = click.Context(command, info_name=command.name, auto_envvar_prefix=prefix)
    extra = flag.get_help_extra(context)
    assert flag.help
    assert all(variable.startswith("CLIPTIDE_") for variable in extra["envvars"])


def with_value(kind: type[click.ParamType]) -> list[Any]:
    """Return each flag and argument whose value is of this kind, beside its command."""
    return [
        pytest.param(command, one, id=f"{name} {one.opts[0]}")
        for name, command in commands(main)
        for one in command.params
        if isinstance(one.type, kind)
    ]


def with_flag(*names: str) -> list[Any]:
    return [
        pytest.param(command, one, id=f"{name} {one.opts[0]}")
        for name, command in commands(main)
        for one in command.params
        if one.opts[0] in names and not one.required and one.type is click.STRING
    ]


def indexes_named() -> list[Any]:
    return [
        pytest.param(command, one, id=f"{name} {one.name}")
        for name, command in commands(main)
        for one in command.params
        if one.name in ("index_id", "first_id", "second_id")
    ]


@pytest.mark.parametrize(("command", "one"), [*with_flag("--bootstrap-servers"), *indexes_named()])
def test_an_empty_address_or_index_id_is_refused_at_once(
    command: click.Command, one: click.Parameter
) -> None:
    assert refused(command, one, " ") == "must not be empty"


@pytest.mark.parametrize("value", ["a/b", "..", "-v2", "é", "a" * 65, "two words", "v2\n", "\udcff"])
@pytest.mark.parametrize(("command", "one"), indexes_named())
def test_a_name_that_no_index_can_have_is_refused_at_once(
    command: click.Command, one: click.Parameter, value: str
) -> None:
    assert "must match" in refused(command, one, value)


@pytest.mark.parametrize("value", ["http://", "http://:80", "http://a:99999", "http://a:b", "http://[::1"])
@pytest.mark.parametrize(("command", "one"), with_flag("--query-url", "--service", "--live"))
def test_an_address_without_a_host_is_refused_at_once(
    command: click.Command, one: click.Parameter, value: str
) -> None:
    assert "has no host" in refused(command, one, value)


@pytest.mark.parametrize("value", ["", "a b", "..", "a" * 250, "shop/uploads"])
@pytest.mark.parametrize(("command", "one"), with_flag("--topic", "--dead-letter-topic"))
def test_what_kafka_takes_for_no_topic_is_refused_at_once(
    command: click.Command, one: click.Parameter, value: str
) -> None:
    assert "is no name of a topic" in refused(command, one, value)


def refused(command: click.Command, one: click.Parameter, value: str) -> str:
    """Return the sentence that refuses the value."""
    with pytest.raises(click.BadParameter) as error:
        one.process_value(click.Context(command), (value,) if one.multiple or one.nargs == -1 else value)
    return error.value.message


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize(("command", "one"), with_value(click.types.FloatParamType))
def test_a_number_is_finite_whatever_its_range_is(
    command: click.Command, one: click.Parameter, value: str
) -> None:
    assert "\n" not in refused(command, one, value)


@pytest.mark.parametrize("value", ["", "  "])
@pytest.mark.parametrize(("command", "one"), with_value(click.Path))
def test_an_empty_path_does_not_stand_for_the_current_directory(
    command: click.Command, one: click.Parameter, value: str
) -> None:
    assert refused(command, one, value) == "must not be empty; the current directory is ."


@pytest.mark.parametrize("arguments", [("verify", "--index-root", ""), ("snapshot", "backup", "")])
def test_an_empty_index_root_or_place_does_not_stand_for_the_current_directory(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("must not be empty; the current directory is .")


@pytest.mark.parametrize(("command", "one"), with_value(NewFile))
def test_a_file_that_cannot_be_written_is_refused_before_the_work_begins(
    command: click.Command, one: click.Parameter, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    assert refused(command, one, str(missing / "page.html")) == f"there is no directory {missing}."
    assert "is a directory" in refused(command, one, str(tmp_path))
    assert one.process_value(click.Context(command), "/dev/null") == Path("/dev/null")


def test_every_file_that_a_command_writes_at_its_end_is_such_a_file() -> None:
    names = {one.id for one in with_value(NewFile)}
    assert names == {"compare --gallery", "evaluate --worst", "reindex --lost", "search --html"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("delete", "x", "--version", str(2**63)),
        ("demo", "--num-images", "100001"),
        ("demo", "--timeout", "-1"),
        ("publish", "x.txt", "--wait", "--wait-timeout", "-0.5"),
    ],
    ids=" ".join,
)
def test_a_number_that_means_nothing_is_refused_with_its_range(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "is not in the range" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "name", [name for name, command in commands(main) if any("--json" in p.opts for p in command.params)]
)
def test_json_is_asked_for_by_a_variable_named_like_the_flag(name: str) -> None:
    variable = f"CLIPTIDE_{name.replace(' ', '_').replace('-', '_').upper()}_JSON"
    assert variable in run(*name.split(), "--help").stdout


def test_what_a_folder_has_beside_pictures_and_texts_is_named_and_nothing_found_is_no_success(
    tmp_path: Path,
) -> None:
    (tmp_path / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    (tmp_path / ".x.jpg").write_bytes(b"\xff\xd8\xff")
    result = run("publish", str(tmp_path), "--dry-run")
    assert result.exit_code == 1
    assert "left out (hidden, or neither pictures nor texts)" in result.stderr
    assert "there is nothing to publish" in result.stderr
    fields = summary(result)
    assert (fields["rows"], fields["left_out"]) == (0, {".mov": 1, "hidden": 1})


@pytest.mark.parametrize(("name", "text"), [("a.csv", "id,text\n"), ("a.jsonl", "\n")], ids=["CSV", "JSONL"])
def test_a_source_without_a_row_is_no_success(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    result = run("publish", str(tmp_path / name), "--dry-run")
    assert (result.exit_code, summary(result)["problem"]) == (1, "there is nothing to publish")


def test_a_dry_run_counts_and_publishes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a red boot")
    (tmp_path / "b.txt").write_text("")
    result = run("publish", str(tmp_path), "--dry-run")
    assert result.exit_code == 1
    assert "b.txt: b.txt is empty" in result.stderr
    fields = summary(result)
    assert (fields["rows"], fields["published"], fields["failed"], fields["dry_run"]) == (2, 0, 1, True)


@pytest.mark.parametrize("num_published", [0, 2])
def test_ctrl_c_says_how_much_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_published: int
) -> None:
    def outcomes(_: PublishRun, stack: ExitStack) -> Iterator[Published]:
        for number in range(num_published):
            delivery = Delivery("content-uploads", 0, number, number + 1)
            yield Published(f"{number}.txt", f"{number}", 3, delivery)
        raise KeyboardInterrupt

    monkeypatch.setattr(PublishRun, "_outcomes", outcomes)
    (tmp_path / "a.txt").write_text("a red boot")
    result = run("publish", str(tmp_path))
    assert result.exit_code == 1
    if not num_published:
        assert result.stderr.endswith("Aborted!\n")
        return
    assert summary(result)["next_offsets"] == {"content-uploads-0": 2}
    assert summary(result)["published"] == 2
    assert summary(result)["problem"].startswith("interrupted; a few more may be in the log")


def test_a_clean_dry_run_exits_with_zero(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a red boot")
    assert run("publish", str(tmp_path), "--dry-run").exit_code == 0


def test_a_flag_can_come_from_its_variable(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a red boot")
    result = run(
        "publish", str(tmp_path), env={"CLIPTIDE_PUBLISH_DRY_RUN": "1", "CLIPTIDE_TOPIC": "elsewhere"}
    )
    assert result.exit_code == 0
    assert summary(result)["topic"] == "elsewhere"


BAD_VARIABLES = {
    "CLIPTIDE_PUBLISH_RATE": "fast",
    "CLIPTIDE_PUBLISH_INLINE_LIMIT": "0",
    "CLIPTIDE_KAFKA__PROPERTIES": '{"acks": 0}',
}


@pytest.mark.parametrize(("variable", "value"), BAD_VARIABLES.items(), ids=BAD_VARIABLES.keys())
def test_a_bad_variable_is_named(tmp_path: Path, variable: str, value: str) -> None:
    result = run("publish", str(tmp_path), env={variable: value})
    assert result.exit_code == 2
    assert variable in result.stderr.splitlines()[-1]


ANSWER = {
    "results": {
        "image": {"hits": [{"content_id": "boot-1", "score": 0.5, "link": "https://x/boot.jpg"}]},
        "text": {"hits": []},
    },
    "snapshot": {"content-uploads-0": {"generation": 3, "next_offset": 42, "watermark": None}},
    "timings": {},
}


def test_a_search_prints_a_table_and_what_it_covers() -> None:
    with StubQueryService({"POST /v1/search": (200, ANSWER)}).serving() as service:
        result = run("search", "red boot", "--query-url", service.url)
    assert result.exit_code == 0
    for words in ("boot-1", "0.500", "text: nothing found", "content-uploads-0 up to 42"):
        assert words in result.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_an_output_that_takes_no_more_bytes_is_one_sentence(flag: list[str]) -> None:
    with (
        StubQueryService({"POST /v1/search": (200, ANSWER)}).serving() as service,
        open("/dev/full", "w") as full,
    ):
        command = [sys.executable, "-m", "cliptide", "search", "red boot", "--query-url", service.url, *flag]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (
        1,
        "Error: the output cannot be written: No space left on device\n",
    )


def test_an_empty_picture_is_refused_before_the_service_is_asked(tmp_path: Path) -> None:
    picture = tmp_path / "empty.jpg"
    picture.touch()
    result = run("search", "--image", str(picture), "--query-url", "http://127.0.0.1:1")
    assert result.exit_code == 2
    assert "empty.jpg is empty" in " ".join(result.stderr.split())


def test_a_search_prints_the_answer_as_json_and_a_gallery_beside_it(tmp_path: Path) -> None:
    with StubQueryService({"POST /v1/search": (200, ANSWER)}).serving() as service:
        result = run(
            "search", "red boot", "--json", "--html", str(tmp_path / "g.html"), "--query-url", service.url
        )
    assert json.loads(result.stdout) == ANSWER
    assert 'src="https://x/boot.jpg"' in (tmp_path / "g.html").read_text()


def test_a_gallery_asks_for_thumbnails_and_carries_them(tmp_path: Path) -> None:
    [hit] = ANSWER["results"]["image"]["hits"]
    answer = {**ANSWER, "results": {"image": {"hits": [{**hit, "thumbnail": "d2VicA=="}]}}}
    with StubQueryService({"POST /v1/search": (200, answer)}).serving() as service:
        run("search", "red boot", "--html", str(tmp_path / "g.html"), "--query-url", service.url)
        [(_, _, request)] = service.requests
    assert request["include"] == ["text", "metadata", "thumbnail"]
    page = (tmp_path / "g.html").read_text()
    assert 'src="data:image/webp;base64,d2VicA=="' in page
    assert "https://x/boot.jpg" not in page


def test_a_search_by_picture_sends_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "boot.png").write_bytes(b"picture")
    with StubQueryService({"POST /v1/search": (200, ANSWER)}).serving() as service:
        run("search", "--image", str(tmp_path / "boot.png"), "--k", "3", "--query-url", service.url)
        [(_, _, request)] = service.requests
    assert request["image"] == "cGljdHVyZQ=="
    assert request["k"] == 3
    assert "text" not in request


def test_a_search_needs_one_question() -> None:
    assert run("search").exit_code == 2


@pytest.mark.parametrize(
    "command", [("search", "a red boot"), ("publish", ".", "--wait")], ids=lambda c: c[0]
)
def test_an_address_without_its_scheme_is_named(command: tuple[str, ...]) -> None:
    result = run(*command, "--query-url", "search.example:8080")
    assert result.exit_code == 2
    assert "'search.example:8080' does not begin with http:// or https://" in result.stderr
    assert "CLIPTIDE_QUERY_URL" in result.stderr


def test_a_password_in_the_address_of_the_query_service_is_refused_and_not_shown() -> None:
    result = run("search", "red", "--query-url", "http://ada:hush@search.example")
    assert result.exit_code == 2
    assert "--api-key" in result.stderr
    assert "hush" not in result.output


def test_nothing_is_published_for_a_query_service_that_refuses_the_key(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a red boot")
    unreachable = "127.0.0.1:1"
    with StubQueryService({"GET /v1/index": (401, refusal("key_required"))}).serving() as service:
        result = run(
            *("publish", str(tmp_path), "--wait"),
            *("--query-url", service.url, "--bootstrap-servers", unreachable),
        )
    assert result.exit_code == 1
    assert "401 key_required" in result.stderr
    assert unreachable not in result.stderr


WRONG_CREDENTIALS = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "PLAIN",
    "sasl.username": "us",
    "sasl.password": "no",
}


@pytest.mark.parametrize(
    "command",
    [
        ("publish", "a.csv"),
        ("delete", "a"),
        ("dead-letters",),
        ("dead-letters", "--republish"),
        ("verify", "--index-root", "index"),
    ],
    ids=" ".join,
)
def test_wrong_credentials_are_told_as_such_and_not_as_a_wrong_address(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("id,text\nboot,a red boot\n")
    create_index(Path("index"))
    with sasl_broker() as address:
        result = run(
            *command,
            *("--bootstrap-servers", address),
            env={"CLIPTIDE_KAFKA__PROPERTIES": json.dumps(WRONG_CREDENTIALS)},
        )
    assert result.exit_code == 1
    assert "wrong password" in result.stderr
    assert "--bootstrap-servers" not in result.stderr


def index_of(topic: str, *known: str) -> dict[str, tuple[int, Any]]:
    """Answers of a query service whose index holds these contents of the topic."""

    def newest(request: Any) -> Any:
        [condition] = request["filter"]["must"]
        hits = [{"content_id": content_id} for content_id in condition["any_of"] if content_id in known]
        return {"results": {"image": {"hits": hits}, "text": {"hits": []}}}

    shards = {f"{topic}-0": {"generation": 1, "next_offset": 9, "num_contents": {"image": len(known)}}}
    return {"GET /v1/index": (200, {"shards": shards}), "POST /v1/browse": (200, newest)}


def test_contents_that_a_run_replaces_are_counted_and_named(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text("a red boot")
    with StubQueryService(index_of("content-uploads", "a.txt", "c.txt", "elsewhere")).serving() as service:
        flags = ("--dry-run", "--query-url", service.url)
        result = run("publish", str(tmp_path), *flags)
        prefixed = run("publish", str(tmp_path), *flags, "--id-prefix", "new/")
    assert "2 content ids of 3 are in the index already: the uploads replace a.txt, c.txt" in result.stderr
    assert summary(result)["replaced"] == 2
    assert prefixed.stderr.count("replace") == 0
    assert summary(prefixed)["replaced"] == 0


def test_content_ids_that_several_rows_have_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\nboot,a red boot\nboot,a blue boot\nshoe,a shoe\n")
    result = run("publish", str(tmp_path / "a.csv"), "--dry-run")
    assert "1 content id names several rows, of which the last one stays: boot" in result.stderr
    assert summary(result)["repeated"] == 1


ELSEWHERE: dict[str, tuple[dict[str, tuple[int, Any]], str]] = {
    "another_topic": (index_of("other", "a.txt"), "holds no index of the topic content-uploads"),
    "key_needed": ({"GET /v1/index": (401, refusal("key_required"))}, "401 key_required"),
}


@pytest.mark.parametrize(("answers", "reason"), ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_a_run_says_that_it_does_not_know_what_it_replaces(
    tmp_path: Path, answers: dict[str, tuple[int, Any]], reason: str
) -> None:
    (tmp_path / "a.txt").write_text("a red boot")
    with StubQueryService(answers).serving() as service:
        result = run("publish", str(tmp_path), "--dry-run", "--query-url", service.url)
    assert result.exit_code == 0
    assert "not known which contents of the index are replaced" in result.stderr
    assert reason in result.stderr
    assert "replaced" not in summary(result)


@pytest.mark.parametrize(("answer", "is_asked"), [("n", True), ("y", True), ("--yes", False)])
def test_a_person_is_asked_before_contents_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, is_asked: bool
) -> None:
    (tmp_path / "a.txt").write_text("a red boot")
    monkeypatch.setattr("cliptide.publishing.publish_run.can_ask", lambda: True)
    with StubQueryService(index_of("content-uploads", "a.txt")).serving() as service, sasl_broker() as broker:
        flags = ["--query-url", service.url, "--bootstrap-servers", broker, *(() if is_asked else (answer,))]
        properties = json.dumps({"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"})
        env = {
            "CLIPTIDE_KAFKA__PROPERTIES": properties[:-1] + ', "sasl.username": "a", "sasl.password": "b"}'
        }
        result = CliRunner(env=env).invoke(main, ["publish", str(tmp_path), *flags], input=f"{answer}\n")
    assert ("Replace them?" in result.stderr) == is_asked
    assert result.exit_code == 1
    if answer == "n":
        assert summary(result)["problem"] == "stopped before anything was published"
    else:
        assert "wrong password" in result.stderr  # it went on, to a broker that refuses it


def test_a_refusal_is_one_line() -> None:
    with StubQueryService({"POST /v1/search": (422, refusal("out_of_range"))}).serving() as service:
        result = run("search", "red", "--query-url", service.url)
    assert result.exit_code == 1
    assert result.stderr == "Error: 422 out_of_range: because of out_of_range\n"
