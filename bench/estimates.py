"""What more load needs, on paper: from the figures of `bench scaling` and assumptions that are named."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# What is assumed, each with where it comes from; docs/scaling.md shows them.
UTILISATION = 0.6  # of the CPUs: what is above is for p99, a lost node and a rollout
POD_CPUS = 2  # Triton's default on Kubernetes
NODE_CPUS, NODE_RESERVED_CPUS = 16, 2  # a usual node; kubelet, DaemonSets
REQUEST_BYTES, ANSWER_BYTES = 3136 + 200, 40 + 200  # 28 x 28 floats; ten floats; gRPC's and HTTP/2's frames
IMAGE_MB = 500  # the slim image, as pulled once by each node
REGISTRY_GBITS = 10.0
CLIENTS_EACH = 1000.0  # requests a second of one client process
CONNECTION_SECONDS = 10  # Triton ends gRPC connections then
MOST_NODES, MOST_PODS = 5000, 150_000  # of a cluster: https://kubernetes.io/docs/setup/best-practices/cluster-large/
MOST_ADDRESSES = 1000  # that clients should get for one headless name; each keeps a connection to all


@dataclass(frozen=True)
class Need:
    """For so many single-image requests a second."""

    requests: float
    replicas: int
    nodes: int
    clusters: int
    memory_gb: float
    gbits: float  # to Triton and back
    clients: int
    connections: int  # open, each client to each replica
    handshakes: float  # new connections a second
    pull_seconds: float  # for all nodes at once, from one registry


def need(requests: float, requests_per_cpu: float, replica_mb: float) -> Need:
    """
    Args:
        requests: A second.
        requests_per_cpu: That one CPU of Triton's answers in a second.
        replica_mb: A replica's memory.
    """
    replicas = math.ceil(requests / (requests_per_cpu * POD_CPUS * UTILISATION))
    nodes = math.ceil(replicas * POD_CPUS / (NODE_CPUS - NODE_RESERVED_CPUS))
    clients = math.ceil(requests / CLIENTS_EACH)
    clusters = max(1, math.ceil(nodes / MOST_NODES), math.ceil(replicas / MOST_ADDRESSES))
    connections = clients * math.ceil(replicas / clusters)
    return Need(
        requests=requests,
        replicas=replicas,
        nodes=nodes,
        clusters=clusters,
        memory_gb=replicas * replica_mb / 1e3,
        gbits=requests * (REQUEST_BYTES + ANSWER_BYTES) * 8 / 1e9,
        clients=clients,
        connections=connections,
        handshakes=connections / CONNECTION_SECONDS,
        pull_seconds=nodes * IMAGE_MB * 8 / 1e3 / REGISTRY_GBITS,
    )


def needs(today: float, requests_per_cpu: float, replica_mb: float) -> Sequence[Need]:
    """Of what one machine answered, of 10 and 1,000 times as much, and of a million requests a second."""
    return [need(load, requests_per_cpu, replica_mb) for load in (today, 10 * today, 1000 * today, 1e6)]
