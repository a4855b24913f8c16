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
// # Rows left out
//
//   - KS-24 to KS-26 are the login at Google: handlers of the service, which call
//     an API of Google and then [jwtauth.SessionHandler.Login].
//   - KE-11 to KE-14 are an OAuth authorization server, which this module is not:
//     it accepts the tokens of one.
//   - KE-16 to KE-20 and IC-17 to IC-20 need webhook.
//   - KK-25 is about what the service computes and none of it is this module's.
package contract
