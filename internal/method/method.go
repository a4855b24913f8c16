// Package method checks HTTP methods (RFC 9110, section 9).
package method

import (
	"strings"

	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/httptoken"
)

// Safe reports whether a method is registered as safe: a client that sends it asks
// for no change (RFC 9110, sections 9.2.1 and 16.1.1; QUERY is that of RFC 10008).
func Safe(name string) bool {
	switch name {
	case "GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "REPORT", "SEARCH", "PRI":
		return true
	}
	return false
}

// Fault returns what is wrong with the name of a method in a configuration, or "".
// Methods are case-sensitive, and every registered one is in capitals.
func Fault(name string) string {
	switch {
	case name == "":
		return config.NotEmpty
	case name == "*":
		return "must be a method; * stands for none"
	case !httptoken.Valid(name):
		return "must be a method, without blanks and separators"
	case strings.ToUpper(name) != name:
		return "must be " + strings.ToUpper(name) + ", as methods are case-sensitive"
	}
	return ""
}
