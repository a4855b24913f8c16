package method_test

import (
	"strings"
	"testing"

	"github.com/usher-go/usher/internal/method"
)

func TestSafe(t *testing.T) {
	// All of the registry, in its order.
	const safe = "GET HEAD OPTIONS PRI PROPFIND QUERY REPORT SEARCH TRACE"
	const unsafe = "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE LABEL LINK LOCK MERGE MKACTIVITY " +
		"MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PATCH POST PROPPATCH PUT REBIND UNBIND UNCHECKOUT " +
		"UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL"
	for name := range strings.FieldsSeq(safe) {
		if !method.Safe(name) || method.Safe(strings.ToLower(name)) || method.Fault(name) != "" {
			t.Error(name)
		}
	}
	for name := range strings.FieldsSeq(unsafe) {
		if method.Safe(name) || method.Fault(name) != "" {
			t.Error(name)
		}
	}
	for _, name := range []string{"", "*", "GETS", "get", "PURGE"} {
		if method.Safe(name) {
			t.Errorf("%q is safe", name)
		}
	}
}

func TestFault(t *testing.T) {
	for name, want := range map[string]string{
		"":           "must not be empty",
		"*":          "must be a method; * stands for none",
		"post":       "must be POST, as methods are case-sensitive",
		"Post":       "must be POST, as methods are case-sensitive",
		" POST":      "must be a method, without blanks and separators",
		"POST ":      "must be a method, without blanks and separators",
		"POST,PUT":   "must be a method, without blanks and separators",
		"POST\n":     "must be a method, without blanks and separators",
		"P\u00d6ST":  "must be a method, without blanks and separators",
		"P\xffST":    "must be a method, without blanks and separators",
		"/orders":    "must be a method, without blanks and separators",
		"M-SEARCH":   "",
		"X_PURGE~2!": "",
	} {
		if got := method.Fault(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
