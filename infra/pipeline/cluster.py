"""What must be known of the cluster before anything is declared: that it is the one named, and that it answers."""

from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigurationError

ANSWER_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster that answered.

    Attributes:
        context: Its name in the kubeconfig.
        node_address: A node's address, for services of type NodePort.
        api_groups: The groups of kinds it knows beside Kubernetes' core.
    """

    context: str
    node_address: str
    api_groups: frozenset[str]

    def require(self, group: str, setting: str, value: str, remedy: str) -> None:
        """Refuse a setting that needs kinds which an add-on brings.

        Raises:
            ConfigurationError: the cluster does not know the group.
        """
        if group not in self.api_groups:
            raise ConfigurationError(
                f"mnist:{setting} is {value}, cluster {self.context!r} does not know {group}: {remedy}"
            )


def connect(context: str) -> Cluster:
    """Find the context and ask its API server.

    Raises:
        ConfigurationError: no context is set, it does not exist, or the cluster does not answer.
    """
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException
    from kubernetes.config.config_exception import ConfigException
    from urllib3.exceptions import HTTPError

    names = _contexts()
    if not context:
        raise ConfigurationError(
            "kubernetes:context is not set: the program never guesses a cluster; "
            f"pulumi config set kubernetes:context <one of {', '.join(names) or 'none found'}>"
        )
    if context not in names:
        raise ConfigurationError(
            f"kubernetes:context is {context!r}, the kubeconfig has {', '.join(names) or 'no context'}: "
            "start the cluster (make minikube), or set KUBECONFIG"
        )
    try:
        api = config.new_client_from_config(context=context)
        nodes = client.CoreV1Api(api).list_node(_request_timeout=ANSWER_SECONDS).items
        groups = client.ApisApi(api).get_api_versions(_request_timeout=ANSWER_SECONDS).groups
    except ApiException as error:
        raise ConfigurationError(f"cluster {context!r} refuses to list its nodes or kinds: {error.reason}") from None
    except (ConfigException, HTTPError, OSError) as error:
        reason = str(getattr(error, "reason", error)).rpartition(": ")[2]
        raise ConfigurationError(
            f"cluster {context!r} cannot be reached ({reason}): start it (minikube start), then run again"
        ) from None
    return Cluster(context=context, node_address=_address(nodes), api_groups=frozenset(group.name for group in groups))


def _contexts() -> list[str]:
    from kubernetes import config
    from kubernetes.config.config_exception import ConfigException

    try:
        contexts, _ = config.list_kube_config_contexts()
    except ConfigException:
        return []
    return [entry["name"] for entry in contexts]


def _address(nodes: list[Any]) -> str:
    """The first node's external address, else its internal one."""
    addresses = {entry.type: entry.address for node in reversed(nodes) for entry in node.status.addresses}
    return str(addresses.get("ExternalIP") or addresses.get("InternalIP") or "localhost")
