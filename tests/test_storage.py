"""Storage against a local disk and two real S3 servers, one of which ignores the condition of a put."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medsynth import _objects, storage
from medsynth.errors import NotFoundError, StorageError
from tests.servers import FaultProxy, Faults, S3Server, free_port

ODD_NAMES = ["a b.png", "ü/日本.png", "a+b.png", "100%.png", "a%20b.png", "q?x=1&y='2'.png", "#[1]~{2}.png"]


@pytest.fixture(params=["local", "moto", "rclone"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder of each kind."""
    if request.param == "local":
        return str(tmp_path / "place")
    server: S3Server = request.getfixturevalue(f"{request.param}_s3")
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return server.bucket() + "/place"


def one_line(error: pytest.ExceptionInfo[StorageError], uri: str) -> str:
    message = str(error.value)
    assert message.startswith(uri)
    assert "\n" not in message
    return message


def test_what_is_put_is_read(place: str) -> None:
    uri = f"{place}/deep/er/file.bin"
    assert storage.head(uri) is None
    storage.put(uri, b"one")
    first = storage.head(uri)
    assert first is not None
    assert (first.uri, first.size) == (uri, 3)
    storage.put(uri, b"other")
    second = storage.head(uri)
    assert second is not None
    assert storage.read(uri) == b"other"
    assert second.etag
    assert second.etag != first.etag
    storage.delete(uri)
    storage.delete(uri)
    assert storage.head(uri) is None


def test_the_second_put_new_loses(place: str) -> None:
    uri = f"{place}/shard"
    conditional = storage.honours_put_new(place)
    assert storage.put_new(uri, b"first", conditional=conditional)
    assert not storage.put_new(uri, b"second", conditional=conditional)
    assert storage.read(uri) == b"first"
    assert [info.uri for info in storage.list_files(place)] == [uri]


@pytest.mark.parametrize("kind", ["local", "moto"])
def test_of_writers_at_once_exactly_one_wins(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = str(tmp_path) if kind == "local" else request.getfixturevalue("moto_env").bucket()
    for turn in range(10):
        uri = f"{folder}/shard-{turn}"
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda writer, uri=uri: storage.put_new(uri, b"%d" % writer * 1000), range(8)))
        assert won.count(True) == 1
        assert storage.read(uri) == b"%d" % won.index(True) * 1000


def test_the_probe_finds_out_who_keeps_the_condition(
    tmp_path: Path, moto_s3: S3Server, rclone_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storage.honours_put_new(str(tmp_path))
    for server in (moto_s3, rclone_s3):
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        bucket = server.bucket()
        assert storage.honours_put_new(f"{bucket}/out") == server.conditional
        assert "Contents" not in server.client().list_objects_v2(Bucket=bucket.removeprefix("s3://"))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_kept(place: str, name: str) -> None:
    uri = f"{place}/{name}"
    storage.put(uri, name.encode())
    assert [info.uri for info in storage.list_files(place)] == [uri]
    assert storage.read(uri) == name.encode()
    assert storage.head(uri) is not None


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_keys_are_the_ones_that_others_see(s3_env: S3Server, name: str) -> None:
    bucket = s3_env.bucket()
    storage.put(f"{bucket}/{name}", b"x")
    seen = s3_env.client().list_objects_v2(Bucket=bucket.removeprefix("s3://"))["Contents"]
    assert [item["Key"] for item in seen] == [name]


def test_an_unusable_key_is_one_line(moto_env: S3Server) -> None:
    bucket = moto_env.bucket()
    with pytest.raises(StorageError) as error:
        storage.put(f"{bucket}/a//b", b"x")
    assert "empty path segment" in one_line(error, f"{bucket}/a//b")


def test_more_keys_than_one_listing_holds(place: str, request: pytest.FixtureRequest) -> None:
    names = [f"{n % 7}/{n:04d}" for n in range(234 if "moto" in request.node.name else 1234)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: storage.put(f"{place}/{name}", name.encode()), names))
    if "://" in place:
        server: S3Server = request.getfixturevalue("moto_s3" if "moto" in request.node.name else "rclone_s3")
        assert server.client().list_objects_v2(Bucket=place.split("/")[2])["IsTruncated"]
    found = list(storage.list_files(place))
    assert [info.uri for info in found] == sorted(f"{place}/{name}" for name in names)
    assert {info.size for info in found} == {6}


def test_a_listing_stops_at_the_folder_and_leaves_out_what_is_hidden(place: str) -> None:
    for name in ("in/a", "in/b/c", "in/.hidden", "in/.git/x", "inside", "in.txt", "out/in/a"):
        storage.put(f"{place}/{name}", b"1")
    wanted = [f"{place}/in/a", f"{place}/in/b/c"]
    assert [info.uri for info in storage.list_files(f"{place}/in")] == wanted
    assert [info.uri for info in storage.list_files(f"{place}/in/")] == wanted
    assert [info.uri for info in storage.list_files(f"{place}/in.txt")] == [f"{place}/in.txt"]
    with pytest.raises(NotFoundError, match="no files there; check the address"):
        list(storage.list_files(f"{place}/nowhere"))


def test_a_bucket_named_like_its_folder_is_listed_right(rclone_env: S3Server) -> None:
    bucket = rclone_env.bucket("same")
    storage.put(f"{bucket}/same/same", b"1")
    for folder in (bucket, f"{bucket}/", f"{bucket}/same"):
        assert [info.uri for info in storage.list_files(folder)] == ["s3://same/same/same"]


def test_the_web_console_s_folder_markers_are_no_files(moto_env: S3Server) -> None:
    bucket = moto_env.bucket()
    for key in ("in/", "in/sub/", "in/sub/a"):
        moto_env.client().put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=b"")
    for folder in (bucket, f"{bucket}/in"):
        assert [info.uri for info in storage.list_files(folder)] == [f"{bucket}/in/sub/a"]


def test_a_dangling_link_is_listed_and_missed_when_read(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "target")
    (tmp_path / "here").write_bytes(b"1")
    gone, here = storage.list_files(str(tmp_path))
    assert storage.read(here.uri) == b"1"
    with pytest.raises(NotFoundError):
        storage.read(gone.uri)


def test_a_parquet_reader_fetches_only_what_it_needs(place: str) -> None:
    uri = f"{place}/table.parquet"
    table = pa.table({"small": range(1000), "large": [os.urandom(2000) for _ in range(1000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=100, compression="none")
    storage.put(uri, sink.getvalue().to_pybytes())
    with storage.open_input(uri) as file:
        assert pq.ParquetFile(file).read_row_group(7).equals(table.slice(700, 100))
    with storage.open_input(uri) as file:
        assert pq.read_table(file).equals(table)
    with storage.open_input(uri) as file:
        assert file.seek(-4, os.SEEK_END) == len(sink.getvalue()) - 4
        assert file.read() == b"PAR1"
        assert file.read(1) == b""
        assert file.seek(2) == 2
        assert file.read(2) == b"R1"


def test_a_column_of_a_remote_table_is_read_without_the_rest(moto_s3: S3Server, monkeypatch) -> None:
    for name, value in moto_s3.env.items():
        monkeypatch.setenv(name, value)
    uri = moto_s3.bucket() + "/table.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"small": range(100), "large": [os.urandom(100_000) for _ in range(100)]}), sink)
    storage.put(uri, sink.getvalue().to_pybytes())
    with FaultProxy(moto_s3, Faults()) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with storage.open_input(uri) as file:
            assert pq.read_table(file, columns=["small"])["small"].to_pylist() == list(range(100))
        assert proxy.counts()["bytes_out"] < 1_000_000 < len(sink.getvalue())


def test_what_is_missing_is_named(place: str) -> None:
    for call in (storage.read, storage.open_input):
        with pytest.raises(NotFoundError) as error:
            call(f"{place}/nothing")
        assert "check" in one_line(error, f"{place}/nothing")


def test_a_missing_bucket_is_named(s3_env: S3Server) -> None:
    calls: list[Callable[[str], object]] = [
        storage.read,
        lambda uri: storage.put(uri, b"1"),
        lambda uri: storage.put_new(uri, b"1"),
        lambda uri: list(storage.list_files(uri)),
        storage.honours_put_new,
    ]
    for call in calls:
        with pytest.raises(NotFoundError, match="check the") as error:
            call("s3://no-such-bucket/key")
        one_line(error, "s3://no-such-bucket/key")


def test_wrong_credentials_are_named_at_once(rclone_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = rclone_env.bucket() + "/key"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    start = time.monotonic()
    with pytest.raises(StorageError, match="access denied; check the credentials") as error:
        storage.put(uri, b"1")
    one_line(error, uri)
    assert time.monotonic() - start < 5


def test_an_output_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = str(tmp_path / "file" / "out")
    for call in (storage.honours_put_new, lambda uri: storage.put(f"{uri}/a", b"1")):
        with pytest.raises(StorageError, match="a part of this path is a file, not a folder; write elsewhere") as error:
            call(folder)
        one_line(error, folder)
    assert storage.head(f"{folder}/a") is None


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert storage.head(str(tmp_path / "folder")) is None
    for call in (storage.read, lambda uri: storage.put(uri, b"1")):
        with pytest.raises(StorageError, match="Is a directory"):
            call(str(tmp_path / "folder"))
    assert not list(tmp_path.glob(".staging/*"))


def test_a_profile_leads_to_its_server(rclone_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = rclone_s3.bucket()
    settings = rclone_s3.env
    (tmp_path / "config").write_text(
        f"[profile elsewhere]\nregion = us-east-1\nendpoint_url = {rclone_s3.endpoint}\n"
        f"aws_access_key_id = {settings['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {settings['AWS_SECRET_ACCESS_KEY']}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    storage.put(f"{bucket}/key", b"by profile")
    assert storage.read(f"{bucket}/key") == b"by profile"
    monkeypatch.setenv("AWS_PROFILE", "misspelt")
    with pytest.raises(StorageError, match="misspelt"):
        storage.read(f"{bucket}/key")


def test_without_credentials_requests_go_unsigned(moto_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = moto_env.bucket() + "/public"
    storage.put(uri, b"anyone's")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="access denied"):
        storage.read(uri)
    key = {"Bucket": uri.split("/")[2], "Key": "public"}
    moto_env.client().put_object_acl(**key, ACL="public-read")
    assert storage.read(uri) == b"anyone's"


def test_amazon_needs_no_endpoint_and_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    store, key = _objects.locate("s3://bucket/key")
    assert (store.config["region"], key) == ("us-east-1", "key")
    assert "endpoint" not in store.config
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert _objects.locate("s3://bucket/key")[0].config["region"] == "eu-west-1"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host/file", "unknown scheme ftp://; use s3://, gs://, az:// or a path"),
        ("s3:///key", "no bucket named; write s3://bucket/key"),
        ("s3://bucket", "no key named; write s3://bucket/key"),
        ("s3://my bucket/key", "'my bucket' is no bucket's name; use letters"),
        ("s3://bucket#1/key", "'bucket#1' is no bucket's name"),
        ("package://no_such_package/file", "the package 'no_such_package' is not installed; pip install it"),
        ("package://", "the package '' is not installed; pip install it"),
        ("az://container/blob", "Account must be specified"),
    ],
)
def test_an_unusable_uri_says_why(uri: str, message: str) -> None:
    with pytest.raises(StorageError) as error:
        storage.read(uri)
    assert message in one_line(error, uri)


def test_uris_of_installed_data_and_of_files(tmp_path: Path) -> None:
    assert storage.read("package://skimage/data/ihc.png").startswith(b"\x89PNG")
    assert "package://skimage/data/ihc.png" in [info.uri for info in storage.list_files("package://skimage/data")]
    (tmp_path / "a").write_bytes(b"1")
    assert storage.read(f"file://{tmp_path}/a") == b"1"


def test_an_absolute_uri_outlives_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/b") == str(tmp_path / "a/b")
    assert storage.absolute("s3://bucket/a") == "s3://bucket/a"
    assert storage.absolute("~/a") == os.path.expanduser("~/a")
    assert storage.join("s3://bucket/a/", "b", "c") == "s3://bucket/a/b/c"


def test_a_writer_killed_in_the_middle_leaves_nothing_to_see(tmp_path: Path) -> None:
    target = tmp_path / "out" / "shard"
    code = f"from medsynth import storage; storage.put_new({str(target)!r}, bytes(400_000_000))"
    writer = subprocess.Popen([sys.executable, "-c", code])
    staging = target.parent / ".staging"
    deadline = time.monotonic() + 60
    while not (staging.is_dir() and any(file.stat().st_size for file in staging.iterdir())):
        assert time.monotonic() < deadline
        assert writer.poll() is None
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    assert storage.head(str(target)) is None
    with pytest.raises(NotFoundError):
        list(storage.list_files(str(target.parent)))
    storage.remove_staging(str(tmp_path))
    assert not staging.exists()
    assert storage.put_new(str(target), b"whole")


def test_a_writer_survives_another_run_s_cleaning(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(lambda: [storage.put_new(f"{tmp_path}/shard-{n}", b"%d" % n) for n in range(200)])
        while not writing.done():
            storage.remove_staging(str(tmp_path))
            time.sleep(0.02)
    assert all(writing.result())
    assert [storage.read(f"{tmp_path}/shard-{n}") for n in range(200)] == [b"%d" % n for n in range(200)]


def test_a_server_that_fails_every_third_request_is_endured(moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in moto_s3.env.items():
        monkeypatch.setenv(name, value)
    bucket = moto_s3.bucket()
    contents = {f"{bucket}/{n}": os.urandom(5000) for n in range(40)}
    faults = Faults(fail_share=1 / 3, delay_share=0.1, delay_seconds=0.2, seed=1)
    with FaultProxy(moto_s3, faults) as proxy, ThreadPoolExecutor(8) as pool:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        list(pool.map(storage.put_new, contents, contents.values()))
        assert list(pool.map(storage.read, contents)) == list(contents.values())
        assert [info.uri for info in storage.list_files(bucket)] == sorted(contents)
        counts = proxy.counts()
    assert all(counts[fault] for fault in ("error_500", "slow_down_503", "dropped_before", "dropped_after", "cut_off"))
    assert counts["delayed"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_s3.endpoint)
    assert {uri: storage.read(uri) for uri in contents} == contents


@pytest.mark.slow
def test_a_server_that_is_not_there_is_named_within_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    start = time.monotonic()
    with pytest.raises(StorageError, match=f"{endpoint} does not answer; check the endpoint") as error:
        storage.honours_put_new("s3://bucket/out")
    one_line(error, "s3://bucket/out")
    assert time.monotonic() - start < 35


def test_the_first_of_many_threads_makes_the_store_for_all(rclone_env: S3Server) -> None:
    uri = rclone_env.bucket() + "/key"
    storage.put(uri, b"1")
    os.environ["AWS_SESSION_LABEL"] = socket.gethostname()  # another environment, so another store
    try:
        start = time.monotonic()
        with ThreadPoolExecutor(64) as pool:
            assert set(pool.map(storage.read, [uri] * 640)) == {b"1"}
        assert time.monotonic() - start < 5  # it took 16 s when each thread made its own
    finally:
        del os.environ["AWS_SESSION_LABEL"]
