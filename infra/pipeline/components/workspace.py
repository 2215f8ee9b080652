"""Where the pods live: namespace, storage claim, identities, permissions and network policies."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from pipeline.components.pods import dns_ports, labels, policy_port, selector

CLAIM = "model-log"
INSPECTOR = "inspector"
PULL_SECRET = "registry"
METRICS_PORT = 8002
TRITON_PORTS = (8000, 8001, METRICS_PORT)
DELETE_TIMEOUT = pulumi.CustomTimeouts(create="10m", delete="20m")


@dataclass(frozen=True, kw_only=True)
class WorkspaceArgs:
    """What the workspace is made for.

    Attributes:
        workloads: The names of the stages; each gets a service account.
        server: The stage that serves.
        downloads: The stage that may reach the network.
        clients: Stages that may call the server.
        client_namespaces: Other namespaces whose pods may call the server.
        monitoring_namespace: The namespace whose pods may read the server's metrics; "" for none.
        teams: Stages of several pods, which talk to each other.
        access_mode: ReadWriteOnce, or ReadWriteMany where pods spread over nodes.
        keep_data: Leave claim and namespace on destroy.
        operators: The group that may look into things; "" for none.
        pull_secret: Registry server, user and password; None where images are free to pull.
    """

    namespace: str
    workloads: Sequence[str]
    server: str
    downloads: str
    clients: Sequence[str]
    client_namespaces: Sequence[str]
    monitoring_namespace: str
    teams: Sequence[str]
    storage_class: str
    storage_size: str
    access_mode: str
    keep_data: bool
    operators: str
    pull_secret: tuple[str, str, pulumi.Output[str]] | None


class Workspace(pulumi.ComponentResource):
    """Creates what every pod needs before it can run."""

    def __init__(self, name: str, args: WorkspaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mnist:pipeline:Workspace", name, None, opts)
        self.name, self.args = name, args
        self.namespace = k8s.core.v1.Namespace(
            f"{name}-namespace",
            metadata=k8s.meta.v1.ObjectMetaArgs(
                name=args.namespace,
                labels={
                    **labels(args.namespace, "workspace"),
                    "pod-security.kubernetes.io/enforce": "restricted",
                    "pod-security.kubernetes.io/enforce-version": "latest",
                },
            ),
            opts=self._opts(retain_on_delete=args.keep_data),
        )
        self.claim = self._claim()
        self.accounts = {workload: self._account(workload) for workload in args.workloads}
        self.pull_secret = self._pull_secret()
        self._policies()
        if args.operators:
            self._operators()
        self.register_outputs({"namespace": args.namespace, "claim": CLAIM})

    def _opts(self, *, retain_on_delete: bool = False) -> pulumi.ResourceOptions:
        depends_on = [self.namespace] if hasattr(self, "namespace") else []
        return pulumi.ResourceOptions(
            parent=self,
            depends_on=depends_on,
            retain_on_delete=retain_on_delete,
            custom_timeouts=DELETE_TIMEOUT,
            delete_before_replace=True,  # the names are fixed
        )

    def _meta(self, name: str, component: str) -> k8s.meta.v1.ObjectMetaArgs:
        return k8s.meta.v1.ObjectMetaArgs(name=name, namespace=self.args.namespace, labels=labels(name, component))

    def _claim(self) -> k8s.core.v1.PersistentVolumeClaim:
        return k8s.core.v1.PersistentVolumeClaim(
            f"{self.name}-claim",
            metadata=k8s.meta.v1.ObjectMetaArgs(
                name=CLAIM,
                namespace=self.args.namespace,
                labels=labels(CLAIM, "storage"),
                # A claim waits for its first pod under WaitForFirstConsumer, so nothing may wait for the claim.
                annotations={"pulumi.com/skipAwait": "true"},
            ),
            spec=k8s.core.v1.PersistentVolumeClaimSpecArgs(
                access_modes=[self.args.access_mode],
                storage_class_name=self.args.storage_class or None,
                resources=k8s.core.v1.VolumeResourceRequirementsArgs(requests={"storage": self.args.storage_size}),
            ),
            # Neither can be changed in place: a claim would be replaced, and all data with it, for another replica.
            opts=pulumi.ResourceOptions.merge(
                self._opts(retain_on_delete=self.args.keep_data),
                pulumi.ResourceOptions(ignore_changes=["spec.accessModes", "spec.storageClassName"]),
            ),
        )

    def _account(self, workload: str) -> k8s.core.v1.ServiceAccount:
        return k8s.core.v1.ServiceAccount(
            f"{self.name}-account-{workload}",
            metadata=self._meta(workload, "identity"),
            automount_service_account_token=False,
            opts=self._opts(),
        )

    def _pull_secret(self) -> k8s.core.v1.Secret | None:
        if self.args.pull_secret is None:
            return None
        server, user, password = self.args.pull_secret
        content = password.apply(lambda secret: json.dumps({"auths": {server: {"username": user, "password": secret}}}))
        return k8s.core.v1.Secret(
            f"{self.name}-pull-secret",
            metadata=self._meta(PULL_SECRET, "identity"),
            type="kubernetes.io/dockerconfigjson",
            string_data={".dockerconfigjson": content},
            opts=self._opts(),
        )

    def _operators(self) -> None:
        """What people who run the pipeline need, and no more."""
        rules = [
            (["batch"], ["jobs"], ["get", "list", "watch"], None),
            ([""], ["pods", "pods/log"], ["get", "list", "watch"], None),
            ([""], ["pods/exec"], ["create"], [INSPECTOR]),
            ([""], ["pods/portforward"], ["create"], None),
            ([""], ["services"], ["get", "list"], None),
        ]
        role = k8s.rbac.v1.Role(
            f"{self.name}-operators",
            metadata=self._meta("operators", "permissions"),
            rules=[
                k8s.rbac.v1.PolicyRuleArgs(api_groups=groups, resources=kinds, verbs=verbs, resource_names=names)
                for groups, kinds, verbs, names in rules
            ],
            opts=self._opts(),
        )
        k8s.rbac.v1.RoleBinding(
            f"{self.name}-operators-binding",
            metadata=self._meta("operators", "permissions"),
            role_ref=k8s.rbac.v1.RoleRefArgs(api_group="rbac.authorization.k8s.io", kind="Role", name="operators"),
            subjects=[
                k8s.rbac.v1.SubjectArgs(api_group="rbac.authorization.k8s.io", kind="Group", name=self.args.operators)
            ],
            opts=pulumi.ResourceOptions.merge(self._opts(), pulumi.ResourceOptions(depends_on=[role])),
        )

    def _policies(self) -> None:
        """Nothing in, nothing out, but what a stage is for."""
        self._policy("default-deny", {}, ingress=[], egress=[])
        dns = k8s.networking.v1.NetworkPolicyEgressRuleArgs(ports=dns_ports())
        everywhere = k8s.networking.v1.NetworkPolicyEgressRuleArgs(
            to=[
                k8s.networking.v1.NetworkPolicyPeerArgs(
                    ip_block=k8s.networking.v1.IPBlockArgs(cidr="0.0.0.0/0", except_=["169.254.0.0/16"])
                )
            ]
        )
        self._policy(self.args.downloads, selector(self.args.downloads), egress=[dns, everywhere])
        ports = [policy_port(number, "TCP") for number in TRITON_PORTS]
        callers = [_peer(client) for client in self.args.clients]
        callers += [_namespace(other) for other in self.args.client_namespaces]
        into_server = [k8s.networking.v1.NetworkPolicyIngressRuleArgs(from_=callers, ports=ports)]
        if self.args.monitoring_namespace:
            into_server.append(
                k8s.networking.v1.NetworkPolicyIngressRuleArgs(
                    from_=[_namespace(self.args.monitoring_namespace)], ports=[policy_port(METRICS_PORT, "TCP")]
                )
            )
        self._policy(self.args.server, selector(self.args.server), ingress=into_server)
        for client in self.args.clients:
            to_server = k8s.networking.v1.NetworkPolicyEgressRuleArgs(to=[_peer(self.args.server)], ports=ports)
            self._policy(client, selector(client), egress=[dns, to_server])
        for team in self.args.teams:
            among_themselves = k8s.networking.v1.NetworkPolicyIngressRuleArgs(from_=[_peer(team)])
            to_each_other = k8s.networking.v1.NetworkPolicyEgressRuleArgs(to=[_peer(team)])
            self._policy(team, selector(team), ingress=[among_themselves], egress=[dns, to_each_other])

    def _policy(
        self,
        name: str,
        pods: dict[str, str],
        *,
        ingress: list[k8s.networking.v1.NetworkPolicyIngressRuleArgs] | None = None,
        egress: list[k8s.networking.v1.NetworkPolicyEgressRuleArgs] | None = None,
    ) -> None:
        types = [kind for kind, rules in (("Ingress", ingress), ("Egress", egress)) if rules is not None]
        k8s.networking.v1.NetworkPolicy(
            f"{self.name}-policy-{name}",
            metadata=self._meta(name, "network"),
            spec=k8s.networking.v1.NetworkPolicySpecArgs(
                pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=pods),
                policy_types=types,
                ingress=ingress,
                egress=egress,
            ),
            opts=self._opts(),
        )


def _peer(name: str) -> k8s.networking.v1.NetworkPolicyPeerArgs:
    return k8s.networking.v1.NetworkPolicyPeerArgs(
        pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=selector(name))
    )


def _namespace(name: str) -> k8s.networking.v1.NetworkPolicyPeerArgs:
    """All pods of a namespace."""
    return k8s.networking.v1.NetworkPolicyPeerArgs(
        namespace_selector=k8s.meta.v1.LabelSelectorArgs(match_labels={"kubernetes.io/metadata.name": name})
    )
