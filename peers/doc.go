// Package peers tests usher together with other programs and libraries: shared
// caches, reverse proxies, compressors, authorization servers, OAuth clients. The
// scripts for Node.js and their packages are in the directory node. It is a module of
// its own, outside the workspace, so that users of usher do not inherit what these
// tests need. Run it with make test-peers.
package peers
