// Package tests holds the tests of this module that need what no program should
// link for them: generators of properties, independent parsers, checkers of
// linearizability and the SDK of OpenTelemetry. It is a module of its own, so that
// nothing of that is among the requirements of the library.
package tests
