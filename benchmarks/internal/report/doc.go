// Package report turns stored results into the report, its charts and the figures of
// the README. The same results always give the same text, so that a test can compare
// what is committed with what was measured.
package report
