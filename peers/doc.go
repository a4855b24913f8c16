// Package peers tests usher beside programs and libraries of others: shared
// caches, reverse proxies, compressors. It is a module of its own, outside of the
// workspace, so that nobody who uses usher inherits what these tests need. Run it
// with make test-peers.
package peers
