package usher_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher"
)

func TestRequire(t *testing.T) {
	reader := &usher.Principal{ID: "reader", Kind: usher.KindAPIKey, Level: usher.LevelReadOnly, Scopes: []string{"notes:read"}}
	writer := &usher.Principal{ID: "writer", Kind: usher.KindJWT, Level: usher.LevelReadWrite, Scopes: []string{"notes:read", "notes:write"}}
	nobody := &usher.Principal{ID: "nobody"}
	levels := usher.Requirement{
		Level:        usher.LevelReadOnly,
		MethodLevels: map[string]usher.Level{http.MethodPost: usher.LevelReadWrite, http.MethodDelete: usher.LevelFull, http.MethodHead: usher.LevelNone},
	}
	scopes := usher.Requirement{Scopes: []string{"notes:read", "notes:write"}}
	kinds := usher.Requirement{Kinds: []usher.Kind{usher.KindOAuth, usher.KindJWT}}
	tests := map[string]struct {
		want      usher.Requirement
		method    string
		principal *usher.Principal
		status    int
		code      string
		challenge string
	}{
		"nothing, but nobody called":       {usher.Requirement{}, "GET", nil, 401, "missing_credential", "Bearer"},
		"nothing, and somebody did":        {usher.Requirement{}, "GET", nobody, 200, "", ""},
		"level: enough":                    {levels, "GET", reader, 200, "", ""},
		"level: none":                      {levels, "GET", nobody, 403, "insufficient_permission", ""},
		"level of a method: too low":       {levels, "POST", reader, 403, "insufficient_permission", ""},
		"level of a method: enough":        {levels, "POST", writer, 200, "", ""},
		"level of a method: still too low": {levels, "DELETE", writer, 403, "insufficient_permission", ""},
		"level of a method may be lower":   {levels, "HEAD", nobody, 200, "", ""},
		"level of a method: nobody":        {levels, "HEAD", nil, 401, "missing_credential", "Bearer"},
		"scopes: all":                      {scopes, "GET", writer, 200, "", ""},
		"scopes: one is missing":           {scopes, "GET", reader, 403, "insufficient_scope", `Bearer error="insufficient_scope", scope="notes:read notes:write"`},
		"scopes: none granted":             {scopes, "GET", nobody, 403, "insufficient_scope", `Bearer error="insufficient_scope", scope="notes:read notes:write"`},
		"kinds: one of them":               {kinds, "GET", writer, 200, "", ""},
		"kinds: another":                   {kinds, "GET", reader, 403, "wrong_credential_kind", ""},
		"kinds: no kind":                   {kinds, "GET", nobody, 403, "wrong_credential_kind", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, "/", nil)
			if tt.principal != nil {
				r = usher.WithPrincipal(r, tt.principal)
			}
			for way, run := range ways {
				called := false
				w := serve(run(usher.Require(tt.want), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true })), r)
				if w.Code != tt.status || called != (tt.status == 200) {
					t.Errorf("%s: status %d, called %t", way, w.Code, called)
				}
				equal(t, way+": code", tt.code, codeOf(t, w))
				equal(t, way+": challenge", tt.challenge, w.Header().Get("WWW-Authenticate"))
			}
		})
	}
}

func TestRequirementIsCopied(t *testing.T) {
	want := usher.Requirement{
		Kinds: []usher.Kind{usher.KindJWT}, Scopes: []string{"a"}, MethodLevels: map[string]usher.Level{"GET": usher.LevelFull},
	}
	m := usher.Require(want)
	want.Kinds[0], want.Scopes[0] = usher.KindAPIKey, "b"
	want.MethodLevels["GET"] = usher.LevelNone
	p := &usher.Principal{Kind: usher.KindJWT, Scopes: []string{"a"}, Level: usher.LevelFull}
	if got := serve(m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), usher.WithPrincipal(get(), p)).Code; got != http.StatusOK {
		t.Errorf("status %d", got)
	}
	p = &usher.Principal{Kind: usher.KindAPIKey, Scopes: []string{"b"}}
	if got := serve(m.Wrap(http.NotFoundHandler()), usher.WithPrincipal(get(), p)).Code; got != http.StatusForbidden {
		t.Errorf("status %d", got)
	}
}

// A leveled authenticator takes the level by its name.
type leveled struct{}

func (leveled) Authenticate(r *http.Request) (*usher.Principal, error) {
	p := &usher.Principal{ID: "caller"}
	return p, p.Level.UnmarshalText([]byte(r.Header.Get("Level")))
}

func TestMethodsThatAreNotListedOpenNothing(t *testing.T) {
	const (
		none, read, write, full = usher.LevelNone, usher.LevelReadOnly, usher.LevelReadWrite, usher.LevelFull

		safe   = "GET HEAD OPTIONS TRACE QUERY PROPFIND REPORT SEARCH"
		unsafe = "POST PUT PATCH DELETE LOCK MKCOL PURGE post get"
	)
	type levels = map[string]usher.Level
	without := func(list string, names ...string) string {
		return strings.Join(slices.DeleteFunc(strings.Fields(list), func(m string) bool { return slices.Contains(names, m) }), " ")
	}
	tests := map[string]struct {
		want usher.Requirement
		// The methods that a caller of this level, and of each higher one, may use. A
		// caller of a lower one may not.
		least map[usher.Level]string
	}{
		"nothing":             {usher.Requirement{}, map[usher.Level]string{none: safe + " " + unsafe}},
		"a level for all":     {usher.Requirement{Level: write}, map[usher.Level]string{write: safe + " " + unsafe}},
		"POST alone":          {usher.Requirement{MethodLevels: levels{"POST": write}}, map[usher.Level]string{none: safe, write: unsafe}},
		"GET alone":           {usher.Requirement{MethodLevels: levels{"GET": read}}, map[usher.Level]string{read: safe, write: unsafe}},
		"GET and DELETE":      {usher.Requirement{MethodLevels: levels{"GET": read, "DELETE": full}}, map[usher.Level]string{read: safe, full: unsafe}},
		"DELETE and a level":  {usher.Requirement{Level: read, MethodLevels: levels{"DELETE": full}}, map[usher.Level]string{read: safe, full: unsafe}},
		"a level above all":   {usher.Requirement{Level: full, MethodLevels: levels{"GET": read}}, map[usher.Level]string{read: safe, full: unsafe}},
		"GET and HEAD":        {usher.Requirement{Level: full, MethodLevels: levels{"GET": read, "HEAD": read}}, map[usher.Level]string{read: safe, full: unsafe}},
		"HEAD has its own":    {usher.Requirement{MethodLevels: levels{"GET": write, "HEAD": read}}, map[usher.Level]string{read: "HEAD", write: without(safe, "HEAD") + " " + unsafe}},
		"QUERY has its own":   {usher.Requirement{MethodLevels: levels{"GET": read, "QUERY": full}}, map[usher.Level]string{read: without(safe, "QUERY"), full: "QUERY " + unsafe}},
		"POST is lower":       {usher.Requirement{Level: full, MethodLevels: levels{"POST": read}}, map[usher.Level]string{read: "POST", full: safe + " " + without(unsafe, "POST")}},
		"one that is unusual": {usher.Requirement{MethodLevels: levels{"PURGE": full}}, map[usher.Level]string{none: safe, full: unsafe}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := usher.Chain(usher.Authenticate(leveled{}), usher.Require(tt.want))
			server := httptest.NewServer(m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
			defer server.Close()
			for least, methods := range tt.least {
				for method := range strings.FieldsSeq(methods) {
					for level := none; level <= full; level++ {
						r, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
						if err != nil {
							t.Fatal(err)
						}
						r.Header.Set("Level", level.String())
						resp, err := server.Client().Do(r)
						if err != nil {
							t.Fatal(err)
						}
						_ = resp.Body.Close()
						want := http.StatusOK
						if level < least {
							want = http.StatusForbidden
						}
						if resp.StatusCode != want {
							t.Errorf("%s by %v: status %d, want %d", method, level, resp.StatusCode, want)
						}
					}
				}
			}
		})
	}
}

func TestRequirePanicsWithEveryFault(t *testing.T) {
	var got []string
	func() {
		defer func() {
			err, _ := recover().(error)
			joined, ok := err.(interface{ Unwrap() []error })
			if !ok {
				t.Fatalf("recovered %v", err)
			}
			for _, e := range joined.Unwrap() {
				c, ok := errors.AsType[*usher.ConfigError](e)
				if !ok || c.Reason == "" {
					t.Fatalf("%T %v", e, e)
				}
				got = append(got, strings.TrimPrefix(c.Field, "usher.Requirement."))
			}
		}()
		usher.Require(usher.Requirement{
			Kinds:  []usher.Kind{usher.KindJWT, ""},
			Scopes: []string{"notes:read", "", "a b", "a\u00a0b", `a"b`, `a\b`, "a\tb"},
			Level:  200,
			MethodLevels: map[string]usher.Level{
				"": 0, "*": 0, "GET": 4, "GET POST": 0, "POST": 0, "post": 9, "Put": 0, "PURGE": 0, "DELETE ": 0,
			},
		})
	}()
	equal(t, "faults", []string{
		"Kinds[1]", "Scopes[1]", "Scopes[2]", "Scopes[3]", "Scopes[4]", "Scopes[5]", "Scopes[6]", "Level",
		`MethodLevels[""]`, `MethodLevels["*"]`, `MethodLevels["DELETE "]`, `MethodLevels["GET"]`, `MethodLevels["GET POST"]`,
		`MethodLevels["Put"]`, `MethodLevels["post"]`, `MethodLevels["post"]`,
	}, got)
}
