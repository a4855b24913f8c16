package ratelimit

import (
	"net/http"
	"slices"
	"strings"
)

// withdraw removes from the header fields what outer limiters have said about policies
// that l replaces: they do not count the request after all. X-RateLimit-* describe only
// one policy, so l sets them again.
func (l *Limiter) withdraw(h http.Header, outer *pending) {
	var names []string
	for ; outer != nil; outer = outer.outer {
		if outer.limiter.family != l.family {
			continue
		}
		for _, p := range outer.limiter.policies {
			if !slices.Contains(l.policies, p) {
				names = append(names, p.Name)
			}
		}
	}
	style := l.config.Headers
	if style.standard() {
		for _, field := range [...]string{"Ratelimit-Policy", "Ratelimit"} {
			withdrawItems(h, field, names)
		}
	}
	if style != StandardHeaders && style != NoHeaders {
		for _, field := range [...]string{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"} {
			delete(h, field)
		}
	}
}

// withdrawItems removes the items of these policies from a list field.
func withdrawItems(h http.Header, field string, names []string) {
	var left []string
	for _, value := range h[field] {
		items := slices.DeleteFunc(strings.Split(value, ", "), func(item string) bool {
			// The name of a policy has no quotation mark.
			quoted, _, _ := strings.Cut(strings.TrimPrefix(item, `"`), `"`)
			return slices.Contains(names, quoted)
		})
		if len(items) > 0 {
			left = append(left, strings.Join(items, ", "))
		}
	}
	if left == nil {
		delete(h, field)
		return
	}
	h[field] = left
}
