"""An ADS and LRS server that keeps what clients send it, as the bytes that they sent.

For recorded_life.py and recorded_verdicts.py. It serves state-of-the-world streams as `mesh_xds::server` does, so that
what a client answered to it is an answer to that as well: nonces count up from 1 on each stream, a type has one
response that is not answered, LDS and RDS wait for the answers to the types before them, LDS and CDS responses are
complete and the others carry what is new.
"""

import queue
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import any_pb2
from google.protobuf.json_format import ParseDict

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 (registers the type)
from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: F401
    http_connection_manager_pb2,
)
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.load_stats.v3 import lrs_pb2

# In the order in which they are sent.
MESSAGES = {
    "CDS": cluster_pb2.Cluster,
    "EDS": endpoint_pb2.ClusterLoadAssignment,
    "LDS": listener_pb2.Listener,
    "RDS": route_pb2.RouteConfiguration,
}
URLS = {kind: f"type.googleapis.com/{message.DESCRIPTOR.full_name}" for kind, message in MESSAGES.items()}
KINDS = {url: kind for kind, url in URLS.items()}
COMPLETE = ("LDS", "CDS")
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
LRS = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
# What a client says by itself after a change, it says within this.
QUIET = 1.5
# Load reports that are kept.
REPORTS = 6


def listener(name, routes):
    filters = "type.googleapis.com/envoy.extensions.filters."
    http = {
        "@type": filters + "network.http_connection_manager.v3.HttpConnectionManager",
        "rds": {"route_config_name": routes, "config_source": {"ads": {}}},
        "http_filters": [{"name": "router", "typed_config": {"@type": filters + "http.router.v3.Router"}}],
    }
    return "LDS", {"name": name, "api_listener": {"api_listener": http}}


def routes(name, *clusters):
    weights = [{"name": cluster, "weight": 50} for cluster in clusters]
    route = {"match": {"prefix": ""}, "route": {"weighted_clusters": {"clusters": weights}}}
    return "RDS", {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}


def cluster(name, endpoints, kind="EDS", timeout="1s"):
    eds = {"eds_config": {"ads": {}}, "service_name": endpoints}
    found = {"name": name, "type": kind, "eds_cluster_config": eds, "lrs_server": {"self": {}}}
    return "CDS", found | {"connect_timeout": timeout}


def endpoints(name, port):
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    locality = {"locality": {"region": "here"}, "load_balancing_weight": 1}
    locality["lb_endpoints"] = [{"endpoint": {"address": address}}]
    return "EDS", {"cluster_name": name, "endpoints": [locality]}


def resources(*made):
    """As bytes, by type and name."""
    found = {}
    for kind, value in made:
        name = value.get("cluster_name") or value["name"]
        found[kind, name] = ParseDict(value, MESSAGES[kind]()).SerializeToString(deterministic=True)
    return found


class Stream:
    """One client: what it asked for, and what it was sent."""

    def __init__(self):
        self.events, self.nonce = queue.Queue(), 0
        self.names = {kind: set() for kind in URLS}
        self.sent = {kind: {} for kind in URLS}
        self.outstanding = {}

    def take(self, request):
        kind = KINDS.get(request.type_url)
        if kind is not None:
            if self.outstanding.get(kind) == request.response_nonce:
                del self.outstanding[kind]
            self.names[kind] = set(request.resource_names)
            # What is named no more is forgotten.
            self.sent[kind] = {name: value for name, value in self.sent[kind].items() if name in self.names[kind]}

    def due(self, revision, resources):
        waits = False
        for kind, url in URLS.items():
            waits |= kind in self.outstanding
            if kind in self.outstanding or (waits and kind in ("LDS", "RDS")):
                continue
            wanted = {name: resources[kind, name] for name in self.names[kind] if (kind, name) in resources}
            new = {name: value for name, value in wanted.items() if self.sent[kind].get(name) != value}
            if not new and not (kind in COMPLETE and self.sent[kind].keys() - wanted.keys()):
                continue
            self.sent[kind], self.nonce, waits = wanted, self.nonce + 1, True
            self.outstanding[kind] = str(self.nonce)
            bodies = wanted if kind in COMPLETE else new
            packed = [any_pb2.Any(type_url=url, value=body) for body in bodies.values()]
            yield discovery_pb2.DiscoveryResponse(
                version_info=revision, type_url=url, nonce=str(self.nonce), resources=packed
            ).SerializeToString()


class Recorder(grpc.GenericRpcHandler):
    """`lines` is the recording: `view REVISION TYPE/NAME=VERSION ...`, `stream`, `request HEX`, `load HEX`."""

    def __init__(self):
        self.lock, self.lines, self.last, self.loads = threading.Lock(), [], time.monotonic(), 0
        self.number, self.resources, self.versions, self.streams = 0, {}, {}, set()
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), [self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def serve(self, resources):
        """Serves these from now on: bytes by type and name."""
        with self.lock:
            self.number += 1
            for key, body in resources.items():
                if self.resources.get(key) != body:
                    self.versions[key] = self.number
            self.resources = dict(resources)
            told = (f"{kind}/{name}={self.versions[kind, name]}" for kind, name in sorted(resources))
            self.note(f"view r{self.number} {' '.join(told)}")
            for stream in self.streams:
                stream.events.put("changed")

    def settle(self):
        """Waits until no client has said anything for a while."""
        while (left := self.last + QUIET - time.monotonic()) > 0:
            time.sleep(left)

    def disconnect(self):
        """Ends the streams, and waits until the clients have opened them anew."""
        with self.lock:
            opened = self.lines.count("stream")
            for stream in self.streams:
                stream.events.put("end")
        while self.lines.count("stream") == opened:
            time.sleep(0.1)
        self.settle()

    def note(self, line):
        self.lines.append(line)
        self.last = time.monotonic()

    def service(self, call):
        handlers = {ADS: self.ads, LRS: self.lrs}
        if call.method not in handlers:
            return None
        # Without a serializer, what handlers read and write is bytes.
        return grpc.stream_stream_rpc_method_handler(handlers[call.method])

    def ads(self, requests, context):
        stream = Stream()

        def read():
            try:
                for raw in requests:
                    with self.lock:
                        self.note(f"request {raw.hex()}")
                    stream.events.put(discovery_pb2.DiscoveryRequest.FromString(raw))
            except Exception:  # The client is gone; the stream ends either way.
                pass
            stream.events.put("end")

        with self.lock:
            self.note("stream")
            self.streams.add(stream)
        threading.Thread(target=read, daemon=True).start()
        try:
            while (event := stream.events.get()) != "end":
                if event != "changed":
                    stream.take(event)
                with self.lock:
                    due = list(stream.due(f"r{self.number}", self.resources))
                    self.last = time.monotonic()
                yield from due
        finally:
            with self.lock:
                self.streams.discard(stream)

    def lrs(self, requests, context):
        """Asks for all clusters each second; the first reports are kept."""
        answer = lrs_pb2.LoadStatsResponse(send_all_clusters=True)
        answer.load_reporting_interval.seconds = 1
        yield answer.SerializeToString()
        for raw in requests:
            with self.lock:
                self.loads += 1
                if self.loads <= REPORTS:
                    # Reports come by themselves, and are no reason to wait.
                    self.lines.append(f"load {raw.hex()}")
