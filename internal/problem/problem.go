// Package problem appends what problem details (RFC 9457) say beyond their own members.
package problem

import (
	"slices"

	"github.com/usher-go/usher/internal/jsontext"
)

// members are the members that no extension replaces.
var members = []string{"type", "title", "status", "detail", "instance", "code", "param", "errors"}

// AppendDetails appends the details of an error to an unfinished JSON object. The entries
// of a map[string]any become extension members, in the order of their names; any other
// details become the member "details". Value appends a value as JSON.
func AppendDetails(b []byte, details any, value func(b []byte, v any) []byte) []byte {
	switch details := details.(type) {
	case nil:
		return b
	case map[string]any:
		var room [8]string
		names := room[:0]
		for name := range details {
			if !slices.Contains(members, name) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			b = appendMember(b, name, details[name], value)
		}
		return b
	default:
		return appendMember(b, "details", details, value)
	}
}

func appendMember(b []byte, name string, v any, value func(b []byte, v any) []byte) []byte {
	b = append(b, ',')
	b = jsontext.AppendString(b, name)
	b = append(b, ':')
	return value(b, v)
}
