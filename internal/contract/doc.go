// Package contract holds what the services and the callers of this module can
// rely on, as tests that run through a real server and a real client: the wire
// contracts of five documented APIs ([TestServices]) and a corpus of hostile
// input ([TestHostile]). Both take the router to mount the application on, so
// that every adapter runs the same rows.
//
// The five services also show how such a service is put together: kisara.go and
// its neighbours are the configuration, the files *_rows.go what a client sees.
//
// A row is named after the service, its number and the promise; "(inferred)"
// marks what the documentation of the service leaves open. Bodies are compared
// byte for byte, apart from placeholders for identifiers and times.
//
// Rows whose outcome depends on time run in a testing/synctest bubble, over
// HTTP/1.1 on in-memory connections (net.Pipe), with the http.Server and
// http.Transport that all others use over loopback TCP.
//
// # Rows that wait for other packages
//
//   - KS-11 to KS-13, KS-21 to KS-26 (tokens of sessions, their refresh, and the
//     login at Google), KE-04, KE-06 and KE-11 to KE-15 (OAuth and signed tokens)
//     need jwtauth. KS-07, KS-08 and KS-10 stand on a session with fixed tokens.
//   - KE-16 to KE-20 and IC-17 to IC-20 need webhook.
//   - KK-25 is about what the service computes and none of it is this module's.
package contract
