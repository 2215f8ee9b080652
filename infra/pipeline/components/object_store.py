"""Access to the object store that holds the model repository: credentials, and the way out of the namespace."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from pipeline.components.pods import PART_OF, dns_ports, labels, policy_port

SECRET = "model-repository"
HTTPS = 443


@dataclass(frozen=True, kw_only=True)
class ObjectStoreArgs:
    """Who may reach what.

    Attributes:
        url: s3://…, in Triton's notation.
        users: The stages that read or write it.
        key_id, secret_key: None where the pods have an identity of their own.
    """

    namespace: str
    url: str
    users: Sequence[str]
    region: str
    key_id: str | None
    secret_key: pulumi.Output[str] | None


class ObjectStore(pulumi.ComponentResource):
    """A Secret whose entries become environment variables, and a NetworkPolicy."""

    def __init__(self, name: str, args: ObjectStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mnist:pipeline:ObjectStore", name, None, opts)
        child = pulumi.ResourceOptions(
            parent=self, depends_on=opts.depends_on if opts is not None else None, delete_before_replace=True
        )
        keys: dict[str, pulumi.Input[str]] = {}
        if args.key_id is not None and args.secret_key is not None:
            keys = {"AWS_ACCESS_KEY_ID": args.key_id, "AWS_SECRET_ACCESS_KEY": args.secret_key}
        meta = k8s.meta.v1.ObjectMetaArgs(name=SECRET, namespace=args.namespace, labels=labels(SECRET, "storage"))
        k8s.core.v1.Secret(
            f"{name}-credentials",
            metadata=meta,
            string_data={"AWS_DEFAULT_REGION": args.region, **keys},
            opts=child,
        )
        pods = k8s.meta.v1.LabelSelectorArgs(
            match_labels={"app.kubernetes.io/part-of": PART_OF},
            match_expressions=[
                k8s.meta.v1.LabelSelectorRequirementArgs(
                    key="app.kubernetes.io/name", operator="In", values=list(args.users)
                )
            ],
        )
        to_store = [*dns_ports(), policy_port(port_of(args.url), "TCP")]
        k8s.networking.v1.NetworkPolicy(
            f"{name}-policy",
            metadata=meta,
            spec=k8s.networking.v1.NetworkPolicySpecArgs(
                pod_selector=pods,
                policy_types=["Egress"],
                egress=[k8s.networking.v1.NetworkPolicyEgressRuleArgs(ports=to_store)],
            ),
            opts=child,
        )
        self.register_outputs({"secret": SECRET})


def port_of(url: str) -> int:
    """The port that `url` names, or that of AWS."""
    named = re.match(r"s3://(?:https?://)?[^/:]+:(\d+)/", url)
    return int(named[1]) if named else HTTPS
