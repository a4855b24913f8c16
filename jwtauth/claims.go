package jwtauth

import (
	"encoding/json"
	"slices"
)

// stringList returns the strings of a JSON array, or of one string, and whether
// value is one of these.
func stringList(value string) ([]string, bool) {
	if text, ok := unquote(value); ok {
		return []string{text}, true
	}
	var list []*string
	if err := json.Unmarshal([]byte(value), &list); err != nil || list == nil || slices.Contains(list, nil) {
		return nil, false
	}
	out := make([]string, len(list))
	for i, text := range list {
		out[i] = *text
	}
	return out, true
}

func contains(list []string, text string) bool { return slices.Contains(list, text) }
