package bearer

import (
	"net/http"
	"slices"
)

// MaxCookies is how many cookies of one name are considered.
const MaxCookies = 4

// Cookies returns the distinct, non-empty values of the cookies of r with this name, and
// at most limit of them.
func Cookies(r *http.Request, name string, limit int) []string {
	var values []string
	for _, c := range r.CookiesNamed(name) {
		if len(values) < limit && c.Value != "" && !slices.Contains(values, c.Value) {
			values = append(values, c.Value)
		}
	}
	return values
}
