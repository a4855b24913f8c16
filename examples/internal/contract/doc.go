// Package contract tests what clients of a service can rely on: each [Row] is one
// promise, checked with a real client and a real server on every router, over
// HTTP/1.1 and HTTP/2. The services beside this package have their rows in
// contract_test.go; a stack of every middleware has hostile input in
// examples/internal/hostile.
//
// A row is named after its service, its number and the promise; "(inferred)" marks
// what the documentation of the service leaves open. Bodies are compared byte for
// byte, apart from placeholders for identifiers and times.
//
// Rows whose outcome depends on time run in a testing/synctest bubble, over
// HTTP/1.1 on in-memory connections (net.Pipe), with the http.Server and
// http.Transport that all others use over loopback TCP.
//
// # Rows left out
//
//   - KS-24 to KS-26 are the login at Google: handlers of the service, which call
//     an API of Google and then open a session.
//   - KE-11 to KE-14 are an OAuth authorization server, which this module is not:
//     it accepts the tokens of one.
//   - KE-16 to KE-20 and IC-17 to IC-20 need webhook.
//   - KK-25 is about what the service computes; none of it belongs to this module.
package contract
