"""An ADS server that is not ours, on gRPC's C-core and Google's protobuf: state-of-the-world and incremental.

    ads.py PORT

Each line of standard input is `serve FILE`: the resources to serve from now on, as a JSON list of `Any`. It prints
`ready`, then `serving REVISION`, and what clients do and say: `opened METHOD`, `acknowledged TYPE REVISION`,
`rejected TYPE: TEXT`. Nonces and revisions are other ones in each process. It ends with its standard input.
"""

import json
import pathlib
import queue
import secrets
import sys
import threading
from concurrent import futures

import grpc
from google.protobuf import any_pb2
from google.protobuf.json_format import ParseDict

from envoy.config.cluster.v3 import cluster_pb2  # noqa: F401 (registers the type, like those below)
from envoy.config.endpoint.v3 import endpoint_pb2  # noqa: F401
from envoy.config.listener.v3 import listener_pb2  # noqa: F401
from envoy.config.route.v3 import route_pb2  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: F401
    http_connection_manager_pb2,
)
from envoy.extensions.transport_sockets.http_11_proxy.v3 import (  # noqa: F401
    upstream_http_11_connect_pb2,
)
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

TYPES = {
    "type.googleapis.com/envoy.config.cluster.v3.Cluster": "CDS",
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment": "EDS",
    "type.googleapis.com/envoy.config.listener.v3.Listener": "LDS",
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration": "RDS",
}
COMPLETE = ("LDS", "CDS")
PROCESS = secrets.token_hex(4)


def say(text):
    print(text, flush=True)


class Shelf:
    """What is served, and the streams that want to hear of it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.resources, self.number, self.streams = {}, 0, set()

    def serve(self, path):
        resources = {}
        for value in json.loads(pathlib.Path(path).read_text()):
            packed = ParseDict(value, any_pb2.Any())
            name = value.get("cluster_name") or value["name"]
            resources[TYPES[packed.type_url], name] = packed
        with self.lock:
            self.resources, self.number = resources, self.number + 1
            # Before anything that clients say of it.
            say(f"serving {self.revision()}")
            for stream in self.streams:
                stream.put("changed")

    def revision(self):
        return f"{PROCESS}.{self.number}"


class Stream:
    """One client: what it asked for, and what it was sent."""

    def __init__(self, shelf):
        self.shelf, self.nonce = shelf, 0
        self.names = {kind: set() for kind in TYPES.values()}
        self.sent = {kind: {} for kind in TYPES.values()}
        self.asked, self.last = set(), {}

    def next_nonce(self, kind):
        self.nonce += 1
        self.last[kind] = f"nonce-{PROCESS}-{self.nonce}"
        return self.last[kind]

    def heard(self, kind, request):
        """Reads an answer. False: it is one to an earlier response."""
        if not request.response_nonce:
            return True
        if request.response_nonce != self.last.get(kind):
            return False
        if request.HasField("error_detail"):
            say(f"rejected {kind}: {' '.join(request.error_detail.message.split())}")
        else:
            say(f"acknowledged {kind} {self.shelf.revision()}")
        return True

    def wanted(self, kind):
        with self.shelf.lock:
            found = ((name, self.shelf.resources.get((kind, name))) for name in self.names[kind])
            return {name: value for name, value in found if value is not None}

    def sotw(self, request):
        kind = TYPES.get(request.type_url)
        if kind is None or not self.heard(kind, request):
            return
        self.asked.add(kind)
        self.names[kind] = set(request.resource_names)

    def delta(self, request):
        kind = TYPES.get(request.type_url)
        if kind is None:
            return
        self.heard(kind, request)
        self.asked.add(kind)
        for name in request.resource_names_subscribe:
            self.names[kind].add(name)
            self.sent[kind].pop(name, None)
        for name in request.resource_names_unsubscribe:
            self.names[kind].discard(name)
            self.sent[kind].pop(name, None)

    def due_sotw(self):
        for url, kind in TYPES.items():
            wanted, sent = self.wanted(kind), self.sent[kind]
            if kind not in self.asked or wanted == sent:
                continue
            changed = {name: value for name, value in wanted.items() if sent.get(name) != value}
            self.sent[kind] = dict(wanted)
            if not changed and kind not in COMPLETE:
                continue
            yield discovery_pb2.DiscoveryResponse(
                version_info=self.shelf.revision(),
                type_url=url,
                nonce=self.next_nonce(kind),
                resources=(wanted if kind in COMPLETE else changed).values(),
            )

    def due_delta(self):
        for url, kind in TYPES.items():
            wanted, sent = self.wanted(kind), self.sent[kind]
            changed = {name: value for name, value in wanted.items() if sent.get(name) != value}
            removed = [name for name in sent if name not in wanted]
            if kind not in self.asked or not (changed or removed):
                continue
            self.sent[kind] = dict(wanted)
            yield discovery_pb2.DeltaDiscoveryResponse(
                system_version_info=self.shelf.revision(),
                type_url=url,
                nonce=self.next_nonce(kind),
                removed_resources=removed,
                resources=[
                    discovery_pb2.Resource(name=name, version=self.shelf.revision(), resource=value)
                    for name, value in changed.items()
                ],
            )


class Ads(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    def __init__(self, shelf):
        self.shelf = shelf

    def run(self, requests, take, due):
        events = queue.Queue()

        def read():
            try:
                for request in requests:
                    events.put(request)
            except Exception:  # The client is gone; the stream ends either way.
                pass
            events.put(None)

        with self.shelf.lock:
            self.shelf.streams.add(events)
        threading.Thread(target=read, daemon=True).start()
        try:
            while (event := events.get()) is not None:
                if event != "changed":
                    take(event)
                yield from due()
        finally:
            with self.shelf.lock:
                self.shelf.streams.discard(events)

    def StreamAggregatedResources(self, requests, context):
        say("opened StreamAggregatedResources")
        stream = Stream(self.shelf)
        yield from self.run(requests, stream.sotw, stream.due_sotw)

    def DeltaAggregatedResources(self, requests, context):
        say("opened DeltaAggregatedResources")
        stream = Stream(self.shelf)
        yield from self.run(requests, stream.delta, stream.due_delta)


def main():
    shelf = Shelf()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(Ads(shelf), server)
    if server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}") == 0:
        sys.exit("the port is taken")
    server.start()
    say("ready")
    for line in sys.stdin:
        shelf.serve(line.removeprefix("serve ").strip())
    server.stop(None)


main()
