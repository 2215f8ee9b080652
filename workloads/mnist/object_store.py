"""A copy of the model repository in an object store, which Triton reads by itself.

An object store renames nothing, so a version cannot appear at once there. What makes it visible is config.pbtxt, one
object: it names the version, and is written when all of that is there.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from mnist.errors import ModelError, StorageError
from mnist.repository import CONFIG_FILE, ModelRepository

# https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md
URL = re.compile(
    r"s3://(?:(?P<server>(?:https?://)?[^/:]+:\d+)/)?(?P<bucket>[a-z0-9][a-z0-9.-]+)(?P<prefix>(?:/[^/]+)*)"
)


class Location(NamedTuple):
    """Of a repository: the server's address (None: AWS), the bucket, and what its keys begin with."""

    server: str | None
    bucket: str
    prefix: str


def location(url: str) -> Location:
    """Of s3://bucket/path, or s3://https://host:port/bucket/path.

    Raises:
        ModelError: it is neither.
    """
    found = URL.fullmatch(url)
    if found is None:
        raise ModelError(
            f"model repository {url!r} is no address: s3://bucket/path, or s3://https://host:port/bucket/path"
        )
    server = found["server"]
    if server is not None and "://" not in server:
        server = f"http://{server}"  # as Triton takes it
    return Location(server, found["bucket"], found["prefix"].strip("/"))


class ObjectStore:
    """Where Triton reads; the credentials are those of the environment (AWS_ACCESS_KEY_ID and so on).

    Raises:
        ModelError: the address is none.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.location = location(self.url)

    def mirror(self, repository: ModelRepository) -> list[int]:
        """Make the store hold what the repository holds; returns the versions that were uploaded.

        Raises:
            StorageError: the store cannot be reached, or refuses; what it served, it still serves.
        """
        with self._explained():
            client = self._client()
            there = dict(self._objects(client, repository.name))
            uploaded = [
                version for version in repository.versions() if self._upload(client, repository, version, there)
            ]
            served = repository.served()
            assert served is not None, "the export has published one"
            config = repository.config_for(served).encode()
            client.put_object(Bucket=self.location.bucket, Key=self._key(repository.name, CONFIG_FILE), Body=config)
            kept = {str(version) for version in repository.versions()}
            surplus = [key for key in there if key.split("/")[-2] not in {repository.name, *kept}]
            for key in surplus:
                client.delete_object(Bucket=self.location.bucket, Key=key)
            return uploaded

    def _upload(self, client: Any, repository: ModelRepository, version: int, there: dict[str, int]) -> bool:
        """Whatever of a version is not there as it is here; a published version never changes."""
        sent = False
        for path in sorted(repository.version_directory(version).iterdir()):
            key = self._key(repository.name, str(version), path.name)
            if there.get(key) != path.stat().st_size:
                client.upload_file(str(path), self.location.bucket, key)
                sent = True
        return sent

    def _objects(self, client: Any, name: str) -> Iterator[tuple[str, int]]:
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=self.location.bucket, Prefix=self._key(name, "")
        )
        for page in pages:
            for entry in page.get("Contents", []):
                yield entry["Key"], entry["Size"]

    def _key(self, *parts: str) -> str:
        return "/".join([self.location.prefix, *parts] if self.location.prefix else parts)

    def _client(self) -> Any:
        import boto3  # takes half a second, and is needed only where there is an object store
        from botocore.config import Config

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.location.server,
            config=Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 4}),
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, S3UploadFailedError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise StorageError(f"{self.url}: {reason}: check address, bucket and credentials, then run again") from None
