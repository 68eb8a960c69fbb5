// Writes resources as gRPC-Go's end-to-end tests and go-control-plane's own example make them, for
// mesh-xds/src/resource/tests/recorded.rs: other people's functions, filled in here with names and numbers only.
//
// They are in packages that only gRPC-Go may import. In a checkout of grpc-go (1.75 or later), with this file as
// internal/recorded/main.go:
//
//	go run ./internal/recorded DIRECTORY
package main

import (
	"os"
	"path/filepath"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	example "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	"google.golang.org/grpc/internal/testutils/xds/e2e"
	"google.golang.org/protobuf/proto"
)

func main() {
	const host, routes = "127.0.0.1", "route-greeter"
	zone := func(name string) e2e.LocalityID { return e2e.LocalityID{Region: "eu", Zone: name} }
	all := map[string]proto.Message{
		"go-listener":             e2e.DefaultClientListener("greeter", routes),
		"go-listener-server":      e2e.DefaultServerListener(host, 50051, e2e.SecurityLevelNone, routes),
		"go-listener-server-tls":  e2e.DefaultServerListener(host, 50051, e2e.SecurityLevelTLS, routes),
		"go-listener-server-mtls": e2e.DefaultServerListener("::1", 50051, e2e.SecurityLevelMTLS, routes),
		"go-listener-server-rds":  e2e.DefaultServerListenerWithRouteConfigName(host, 50051, e2e.SecurityLevelNone, routes),
		"go-routes":               e2e.DefaultRouteConfig(routes, "greeter", "cluster-greeter"),
		"go-routes-weighted": e2e.RouteConfigResourceWithOptions(e2e.RouteConfigOptions{
			RouteConfigName:      routes,
			ListenerName:         "greeter",
			ClusterSpecifierType: e2e.RouteConfigClusterSpecifierTypeWeightedCluster,
		}),
		"go-routes-non-forwarding": e2e.RouteConfigNonForwardingAction(routes),
		"go-routes-filter-action":  e2e.RouteConfigFilterAction(routes),
		"bad-go-routes-no-match":   e2e.RouteConfigNoRouteMatch(routes),
		"go-cluster":               e2e.DefaultCluster("cluster-greeter", "endpoints-greeter", e2e.SecurityLevelNone),
		"go-cluster-mtls":          e2e.DefaultCluster("cluster-greeter", "endpoints-greeter", e2e.SecurityLevelMTLS),
		"go-cluster-ring-hash-lrs": e2e.ClusterResourceWithOptions(e2e.ClusterOptions{
			ClusterName: "cluster-greeter",
			ServiceName: "endpoints-greeter",
			Policy:      e2e.LoadBalancingPolicyRingHash,
			EnableLRS:   true,
		}),
		"go-cluster-dns": e2e.ClusterResourceWithOptions(e2e.ClusterOptions{
			Type:        e2e.ClusterTypeLogicalDNS,
			ClusterName: "cluster-dns",
			DNSHostName: "greeter.example.com",
			DNSPort:     8080,
		}),
		"go-cluster-aggregate": e2e.ClusterResourceWithOptions(e2e.ClusterOptions{
			Type:        e2e.ClusterTypeAggregate,
			ClusterName: "cluster-all",
			ChildNames:  []string{"cluster-greeter", "cluster-dns"},
		}),
		"bad-go-cluster-system-roots": e2e.ClusterResourceWithOptions(e2e.ClusterOptions{
			ClusterName:   "cluster-greeter",
			ServiceName:   "endpoints-greeter",
			SecurityLevel: e2e.SecurityLevelTLSWithSystemRootCerts,
		}),
		"go-endpoints": e2e.EndpointResourceWithOptions(e2e.EndpointOptions{
			ClusterName: "endpoints-greeter",
			Host:        host,
			Localities: []e2e.LocalityOptions{
				{Name: "near", Weight: 3, Locality: zone("a"), Backends: []e2e.BackendOptions{
					{Ports: []uint32{1, 2}, Weight: 7, Hostname: "one.example.com"},
					{Ports: []uint32{3}, HealthStatus: corepb.HealthStatus_DRAINING},
				}},
				{Name: "far", Weight: 1, Priority: 1, Locality: zone("b"), Backends: []e2e.BackendOptions{
					{Ports: []uint32{4}, Metadata: map[string]any{"version": "v2"}},
				}},
			},
			DropPercents: map[string]int{"lb": 5},
		}),
		"go-example-routes":            example.MakeRouteConfig("routes", "cluster"),
		"go-example-cluster":           example.MakeCluster(example.Ads, "cluster"),
		"bad-go-endpoints-no-locality": example.MakeEndpoint("cluster", 8080),
		"bad-go-cluster-other-server":  example.MakeCluster(example.Xds, "cluster"),
		"bad-go-listener-tcp":          example.MakeTCPListener("listener", 8080, "cluster"),
		"go-example-listener":          example.MakeRouteHTTPListener(example.Ads, "listener", 8080, "routes"),
		"bad-go-listener-scoped":       example.MakeScopedRouteHTTPListener(example.Ads, "listener", 8080),
		"bad-go-routes-vhds":           example.MakeVHDSRouteConfig(example.Ads, "routes"),
	}
	for name, message := range all {
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
		if err != nil {
			panic(err)
		}
		if err := os.WriteFile(filepath.Join(os.Args[1], name+".bin"), body, 0o644); err != nil {
			panic(err)
		}
	}
}
