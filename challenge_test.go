package usher_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher"
)

func TestChallenge(t *testing.T) {
	tests := map[string]struct {
		params []string
		want   string
	}{
		"no parameters":             {nil, `Bearer`},
		"one":                       {[]string{"realm", "notes"}, `Bearer realm="notes"`},
		"two":                       {[]string{"realm", "notes", "error", "invalid_token"}, `Bearer realm="notes", error="invalid_token"`},
		"empty values are left out": {[]string{"realm", "", "error", "x", "scope", ""}, `Bearer error="x"`},
		"only empty values":         {[]string{"realm", ""}, `Bearer`},
		"a name without a value":    {[]string{"realm", "notes", "error"}, `Bearer realm="notes"`},
		"quotes and backslashes":    {[]string{"realm", `a"b\c`}, `Bearer realm="a\"b\\c"`},
		"a second challenge":        {[]string{"realm", `", Basic realm="evil`}, `Bearer realm="\", Basic realm=\"evil"`},
		"line ends and controls":    {[]string{"realm", "a\r\nSet-Cookie: b\x00\x7f\t"}, `Bearer realm="a  Set-Cookie: b   "`},
		"bytes beyond ASCII":        {[]string{"realm", "é\xff"}, `Bearer realm="   "`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			equal(t, "challenge", tt.want, usher.Challenge("Bearer", tt.params...))
		})
	}
}

// A challenge is a challenge as a client parses it.
type challenge struct {
	Scheme string
	Params [][2]string
}

// parseChallenges is a small reader of WWW-Authenticate (RFC 9110, section
// 11.6.1) for schemes with parameters.
func parseChallenges(s string) (list []challenge, err error) {
	word := func() string {
		end := strings.IndexFunc(s, func(c rune) bool {
			return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~", c)
		})
		if end < 0 {
			end = len(s)
		}
		w := s[:end]
		s = s[end:]
		return w
	}
	for s != "" {
		name := word()
		switch {
		case name == "":
			return nil, errors.New("no token at " + s)
		case !strings.HasPrefix(s, "="):
			list = append(list, challenge{Scheme: name})
			s = strings.TrimLeft(s, " ")
			continue
		case len(list) == 0:
			return nil, errors.New("no scheme at " + s)
		}
		var value strings.Builder
		if s = s[1:]; !strings.HasPrefix(s, `"`) {
			return nil, errors.New("no quote at " + s)
		}
		for s = s[1:]; ; s = s[1:] {
			if s == "" {
				return nil, errors.New("open quote")
			}
			if s[0] == '"' {
				break
			}
			if s[0] == '\\' && len(s) > 1 {
				s = s[1:]
			}
			if s[0] < ' ' || s[0] >= 0x7f {
				return nil, errors.New("a byte that no field may carry")
			}
			value.WriteByte(s[0])
		}
		last := &list[len(list)-1]
		last.Params = append(last.Params, [2]string{name, value.String()})
		if s = s[1:]; s == "" {
			break
		}
		if !strings.HasPrefix(s, ", ") {
			return nil, errors.New("no comma at " + s)
		}
		s = s[2:]
	}
	return list, nil
}

func FuzzChallenge(f *testing.F) {
	f.Add("notes", "invalid_token")
	f.Add(`", Basic realm="evil`, `\`)
	f.Add(`\"`, "a\r\nb")
	f.Add("", "\x00\xff")
	f.Fuzz(func(t *testing.T, realm, text string) {
		got, err := parseChallenges(usher.Challenge("Bearer", "realm", realm, "error_description", text))
		if err != nil {
			t.Fatal(err)
		}
		want := challenge{Scheme: "Bearer"}
		for _, p := range [][2]string{{"realm", realm}, {"error_description", text}} {
			if p[1] != "" {
				want.Params = append(want.Params, [2]string{p[0], printable(p[1])})
			}
		}
		equal(t, "challenges", []challenge{want}, got)

		// Require reads the challenge of an authenticator and repeats its realm.
		d := detector{field: "A", challenge: usher.Challenge("Bearer", "realm", realm, "x", text)}
		h := usher.Chain(usher.Authenticate(d), usher.Require(usher.Requirement{Scopes: []string{"s"}})).Wrap(http.NotFoundHandler())
		got, err = parseChallenges(serve(h, get("A", "good")).Header().Get("WWW-Authenticate"))
		if err != nil {
			t.Fatal(err)
		}
		want = challenge{Scheme: "Bearer"}
		for _, p := range [][2]string{{"realm", realm}, {"error", "insufficient_scope"}, {"scope", "s"}, {"x", text}} {
			if p[1] != "" {
				want.Params = append(want.Params, [2]string{p[0], printable(p[1])})
			}
		}
		equal(t, "challenges of Require", []challenge{want}, got)
	})
}

// FuzzChallengeOfAnAuthenticator gives Require whatever an authenticator may return.
func FuzzChallengeOfAnAuthenticator(f *testing.F) {
	f.Add(`Bearer realm="a", scope="b c", resource_metadata=d`)
	f.Add(`Bearer realm="a\"b\\`)
	f.Add(`bearer ,, = "`)
	f.Fuzz(func(t *testing.T, text string) {
		d := detector{field: "A", challenge: text}
		h := usher.Chain(usher.Authenticate(d), usher.Require(usher.Requirement{Scopes: []string{"s"}})).Wrap(http.NotFoundHandler())
		got, err := parseChallenges(serve(h, get("A", "good")).Header().Get("WWW-Authenticate"))
		if err != nil || len(got) != 1 || got[0].Scheme != "Bearer" || !slices.Contains(got[0].Params, [2]string{"error", "insufficient_scope"}) {
			t.Errorf("%v %v", got, err)
		}
	})
}

// printable is s with a space for every byte that a field may not carry.
func printable(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			b[i] = ' '
		}
	}
	return string(b)
}
