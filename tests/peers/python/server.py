"""Reviews on gRPC's C-core.

    server.py PORT --instance NAME [--plain] [--failing]

Configured by the control plane that GRPC_XDS_BOOTSTRAP names: in plaintext or with mTLS, as its listener
says; until there is one, it refuses calls. With `--plain` it knows no mesh; with
`--failing` it answers every call with UNAVAILABLE. Prints `ready` when it has
started, and ends with its standard input.
"""

import argparse
import sys
from concurrent import futures

import grpc

import bookinfo_pb2
import bookinfo_pb2_grpc


class Reviews(bookinfo_pb2_grpc.ReviewsServicer):
    def __init__(self, instance, failing):
        self.failing = failing
        self.origin = bookinfo_pb2.Origin(service="reviews", version="python", instance=instance)

    def GetReviews(self, request, context):
        if self.failing:
            context.abort(grpc.StatusCode.UNAVAILABLE, "told to fail")
        return bookinfo_pb2.ReviewsReply(origin=self.origin)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--failing", action="store_true")
    args = parser.parse_args()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), xds=not args.plain)
    bookinfo_pb2_grpc.add_ReviewsServicer_to_server(Reviews(args.instance, args.failing), server)
    credentials = grpc.insecure_server_credentials()
    if not args.plain:
        credentials = grpc.xds_server_credentials(credentials)
    server.add_secure_port(f"127.0.0.1:{args.port}", credentials)
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(None)


main()
