"""The images of our own, built and pushed by Pulumi, and pinned by digest in every pod."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_docker as docker

TAG = "latest"  # for people; pods use the digest


@dataclass(frozen=True, kw_only=True)
class ImagesArgs:
    """What to build, and where to push it.

    Attributes:
        names: The images to build; each has a folder below workloads/docker.
        registry: host[:port][/path] to push to.
        context: The build context, workloads/.
        network: Docker's build network; "" for Docker's default.
        build_args: Build arguments for all images.
        user, password: Of the registry; "" where it takes anyone.
    """

    names: tuple[str, ...]
    registry: str
    context: Path
    network: str
    build_args: Mapping[str, str]
    user: str
    password: pulumi.Output[str] | None


class Images(pulumi.ComponentResource):
    """Builds every image; `digest(name)` is what a pod must name."""

    def __init__(self, name: str, args: ImagesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mnist:pipeline:Images", name, None, opts)
        self.images = {image: self._build(name, image, args) for image in args.names}
        self.register_outputs({image: built.repo_digest for image, built in self.images.items()})

    def digest(self, image: str) -> pulumi.Output[str]:
        """registry/name@sha256:…"""
        return self.images[image].repo_digest

    def _build(self, name: str, image: str, args: ImagesArgs) -> docker.Image:
        host = args.registry.partition("/")[0]
        registry = docker.RegistryArgs(server=host, username=args.user, password=args.password) if args.user else None
        return docker.Image(
            f"{name}-{image}",
            image_name=f"{args.registry}/{image}:{TAG}",
            registry=registry,
            build=docker.DockerBuildArgs(
                context=str(args.context),
                dockerfile=str(args.context / "docker" / image / "Dockerfile"),
                platform="linux/amd64",
                network=args.network or None,
                args=dict(args.build_args),
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
