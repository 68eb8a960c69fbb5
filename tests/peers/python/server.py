"""Reviews as an xDS-configured server on gRPC's C-core.

    server.py PORT [--mtls]

Prints `serving` once the control plane has configured it (gRPC's serving status), and ends with its
standard input.
"""

import argparse
import sys
from concurrent import futures

import grpc

import bookinfo_pb2
import bookinfo_pb2_grpc


class Reviews(bookinfo_pb2_grpc.ReviewsServicer):
    def GetReviews(self, request, context):
        origin = bookinfo_pb2.Origin(service="reviews", version="python", instance="reviews-python")
        return bookinfo_pb2.ReviewsReply(origin=origin)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--mtls", action="store_true")
    args = parser.parse_args()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), xds=True)
    bookinfo_pb2_grpc.add_ReviewsServicer_to_server(Reviews(), server)
    credentials = grpc.insecure_server_credentials()
    if args.mtls:
        credentials = grpc.xds_server_credentials(credentials)
    server.add_secure_port(f"127.0.0.1:{args.port}", credentials)
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(None)


main()
