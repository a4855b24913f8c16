package bearer_test

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/usher-go/usher/internal/bearer"
	"github.com/usher-go/usher/internal/race"
)

const long = 64 << 10

func TestHeader(t *testing.T) {
	tests := map[string]struct {
		lines     []string
		want      string
		malformed bool
	}{
		"absent":                          {nil, "", false},
		"one line":                        {[]string{"k"}, "k", false},
		"blanks around it are removed":    {[]string{" \tk\t "}, "k", false},
		"only blanks are none":            {[]string{" \t "}, "", false},
		"blanks inside stay":              {[]string{"a b"}, "a b", false},
		"two lines":                       {[]string{"k", "l"}, "", true},
		"two equal lines":                 {[]string{"k", "k"}, "", true},
		"an empty line and another":       {[]string{"", "k"}, "", true},
		"the longest":                     {[]string{strings.Repeat("k", long)}, strings.Repeat("k", long), false},
		"longer":                          {[]string{strings.Repeat("k", long+1)}, "", true},
		"blanks count towards the length": {[]string{"k" + strings.Repeat(" ", long)}, "", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := bearer.Header(http.Header{"X-Api-Key": tt.lines}, "X-Api-Key")
			if got != tt.want || errors.Is(err, bearer.ErrMalformed) != tt.malformed {
				t.Errorf("got %.20q, %v", got, err)
			}
		})
	}
	if got, err := bearer.Header(http.Header{"X_api_key": {"k"}}, "X-Api-Key"); got != "" || err != nil {
		t.Errorf("another field: %q, %v", got, err)
	}
}

func TestToken(t *testing.T) {
	const malformed = "malformed"
	tests := map[string]struct {
		lines       []string
		want, exact string
	}{
		"absent":                        {nil, "", ""},
		"a token":                       {[]string{"Bearer t"}, "t", "t"},
		"the scheme has no case":        {[]string{"bEARER t"}, "t", ""},
		"several blanks":                {[]string{"Bearer   t "}, "t", "t"},
		"another scheme":                {[]string{"Basic t"}, "", ""},
		"a scheme that begins alike":    {[]string{"Bearers t"}, "", ""},
		"no scheme":                     {[]string{"t"}, "", ""},
		"empty":                         {[]string{""}, "", ""},
		"the scheme alone":              {[]string{"Bearer"}, malformed, ""},
		"the scheme and a blank":        {[]string{"Bearer "}, malformed, malformed},
		"the scheme and blanks":         {[]string{"Bearer    "}, malformed, malformed},
		"a tab":                         {[]string{"Bearer\tt"}, malformed, ""},
		"a tab behind a blank":          {[]string{"Bearer \tt"}, malformed, malformed},
		"two words":                     {[]string{"Bearer a b"}, malformed, malformed},
		"a list":                        {[]string{"Bearer a, Bearer b"}, malformed, malformed},
		"a list without blanks":         {[]string{"Bearer a,b"}, malformed, malformed},
		"a comma":                       {[]string{"Bearer,a"}, malformed, ""},
		"two lines":                     {[]string{"Bearer a", "Bearer b"}, malformed, malformed},
		"two equal lines":               {[]string{"Bearer a", "Bearer a"}, malformed, malformed},
		"another scheme and this":       {[]string{"Basic a", "Bearer b"}, malformed, malformed},
		"this scheme and another":       {[]string{"Bearer b", "Basic a"}, malformed, malformed},
		"two lines of another scheme":   {[]string{"Basic a", "Basic b"}, "", ""},
		"too long":                      {[]string{"Bearer " + strings.Repeat("t", long-6)}, malformed, malformed},
		"the longest":                   {[]string{"Bearer " + strings.Repeat("t", long-7)}, strings.Repeat("t", long-7), strings.Repeat("t", long-7)},
		"another case and another line": {[]string{"bearer a", "Basic b"}, malformed, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for exact, want := range map[bool]string{false: tt.want, true: tt.exact} {
				got, err := bearer.Token(http.Header{"Authorization": tt.lines}, "Bearer", exact)
				if errors.Is(err, bearer.ErrMalformed) {
					got += malformed
				}
				if got != want {
					t.Errorf("exact %t: got %.20q, want %.20q", exact, got, want)
				}
			}
		})
	}
}

func TestTokenOfAnyScheme(t *testing.T) {
	h := http.Header{"Authorization": {"api-KEY t"}}
	for scheme, want := range map[string]string{"Api-Key": "t", "Bearer": "", "Api": "", "Api-Key-2": "", "Api-Ke": ""} {
		if got, err := bearer.Token(h, scheme, false); got != want || err != nil {
			t.Errorf("scheme %s: got %q, %v", scheme, got, err)
		}
	}
	if got, err := bearer.Token(h, "Api-Key", true); got != "" || err != nil {
		t.Errorf("exact: got %q, %v", got, err)
	}
}

func TestBare(t *testing.T) {
	for name, tt := range map[string]struct {
		lines     []string
		want      string
		malformed bool
	}{
		"absent":                               {nil, "", false},
		"empty":                                {[]string{" \t"}, "", false},
		"a word":                               {[]string{"k"}, "k", false},
		"blanks around it":                     {[]string{"\tk  "}, "k", false},
		"the name of a scheme":                 {[]string{"Bearer"}, "Bearer", false},
		"a scheme and a token":                 {[]string{"Bearer k"}, "", false},
		"a scheme and parameters":              {[]string{`Digest a="b", c="d"`}, "", false},
		"two words, the first of which cannot": {[]string{"k/1 l"}, "", true},
		"a list":                               {[]string{"k, l"}, "", true},
		"a list without blanks":                {[]string{"k,l"}, "", true},
		"a tab":                                {[]string{"k\tl"}, "", true},
		"two lines":                            {[]string{"k", "l"}, "", true},
		"two equal lines":                      {[]string{"k", "k"}, "", true},
		"an empty line and a word":             {[]string{"", "k"}, "", true},
		"a scheme and a word":                  {[]string{"Bearer k", "l"}, "", true},
		"two lines with schemes":               {[]string{"Bearer k", "Basic l"}, "", false},
		"the longest":                          {[]string{strings.Repeat("k", long)}, strings.Repeat("k", long), false},
		"longer":                               {[]string{strings.Repeat("k", long+1)}, "", true},
	} {
		got, err := bearer.Bare(http.Header{"Authorization": tt.lines})
		if got != tt.want || errors.Is(err, bearer.ErrMalformed) != tt.malformed {
			t.Errorf("%s: got %.20q, %v", name, got, err)
		}
	}
}

// Whatever the field holds, it is a word or has a scheme, never both.
func FuzzBare(f *testing.F) {
	for _, seed := range []string{"k", "Bearer k", "bearer", "k, l", "Bearer", "Bearer \nk", "\xff k", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		h := http.Header{"Authorization": strings.Split(field, "\n")}
		got, err := bearer.Bare(h)
		check(t, h["Authorization"], got, err)
		if token, err := bearer.Token(h, "Bearer", false); got != "" && (token != "" || err != nil && !strings.EqualFold(got, "Bearer")) {
			t.Errorf("got %q and %q, %v of %q", got, token, err, field)
		}
	})
}

func TestErrorsHoldNoCredential(t *testing.T) {
	for _, line := range []string{"Bearer secret secret", "Bearer\tsecret", "Bearer secret,"} {
		if _, err := bearer.Token(http.Header{"Authorization": {line}}, "Bearer", false); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v", err)
		}
	}
}

func TestAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	h := http.Header{"Authorization": {"Bearer token"}, "X-Api-Key": {"key"}, "Hostile": {strings.Repeat("k", 900<<10)}}
	if got := testing.AllocsPerRun(100, func() {
		_, _ = bearer.Token(h, "Bearer", false)
		_, _ = bearer.Bare(h)
		_, _ = bearer.Header(h, "X-Api-Key")
		_, _ = bearer.Header(h, "Hostile")
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// check fails the test unless what was taken out of lines is one credential of one line,
// or nothing.
func check(t *testing.T, lines []string, got string, err error) {
	t.Helper()
	if err != nil && (got != "" || !errors.Is(err, bearer.ErrMalformed)) {
		t.Errorf("got %q with %v", got, err)
	}
	if got != "" && (len(lines) != 1 || !strings.Contains(lines[0], got)) {
		t.Errorf("got %q of %q", got, lines)
	}
}

var tokenForm = regexp.MustCompile(`^(?i:bearer) +([^ \t,]+) *$`)

func FuzzToken(f *testing.F) {
	for _, seed := range []string{"Bearer t", "bearer  t ", "Bearer", "Bearer\tt", "Bearer a, Bearer b", "Basic a\nBearer b", "Bearer a\nBearer a", "Bearer a b", "Bearers t", "Bearer \xff", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		lines := strings.Split(field, "\n")
		got, err := bearer.Token(http.Header{"Authorization": lines}, "Bearer", false)
		check(t, lines, got, err)
		var want string
		if m := tokenForm.FindStringSubmatch(lines[0]); m != nil && len(lines) == 1 {
			want = m[1]
		}
		if got != want && len(field) <= long {
			t.Errorf("got %q, want %q of %q", got, want, lines)
		}
		exact, err := bearer.Token(http.Header{"Authorization": lines}, "Bearer", true)
		check(t, lines, exact, err)
		if exact != "" && exact != got {
			t.Errorf("exact is %q, else %q", exact, got)
		}
	})
}

func FuzzHeader(f *testing.F) {
	for _, seed := range []string{"k", " k\t", "a\nb", "\n", "", "a b", "\x00\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		lines := strings.Split(field, "\n")
		got, err := bearer.Header(http.Header{"X-Api-Key": lines}, "X-Api-Key")
		check(t, lines, got, err)
		if bad := len(lines) > 1 || len(field) > long; bad != (err != nil) {
			t.Errorf("got %q, %v of %q", got, err, lines)
		}
		if got != strings.Trim(got, " \t") {
			t.Errorf("blanks around %q", got)
		}
	})
}
