package usher_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
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
		"nothing, and no principal":        {usher.Requirement{}, "GET", nil, 401, "missing_credential", "Bearer"},
		"nothing, and a principal":         {usher.Requirement{}, "GET", nobody, 200, "", ""},
		"level: enough":                    {levels, "GET", reader, 200, "", ""},
		"level: none":                      {levels, "GET", nobody, 403, "insufficient_permission", ""},
		"level of a method: too low":       {levels, "POST", reader, 403, "insufficient_permission", ""},
		"level of a method: enough":        {levels, "POST", writer, 200, "", ""},
		"level of a method: still too low": {levels, "DELETE", writer, 403, "insufficient_permission", ""},
		"level of a method may be lower":   {levels, "HEAD", nobody, 200, "", ""},
		"level of a method: no principal":  {levels, "HEAD", nil, 401, "missing_credential", "Bearer"},
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

// A leveled authenticator reads the name of the level from the request.
type leveled struct{}

func (leveled) Authenticate(r *http.Request) (*usher.Principal, error) {
	p := &usher.Principal{ID: "caller"}
	return p, p.Level.UnmarshalText([]byte(r.Header.Get("Level")))
}

func TestUnlistedMethodsAllowNothingMore(t *testing.T) {
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
			RevealOwner: true,
		})
	}()
	equal(t, "faults", []string{
		"Kinds[1]", "Scopes[1]", "Scopes[2]", "Scopes[3]", "Scopes[4]", "Scopes[5]", "Scopes[6]", "Level",
		`MethodLevels[""]`, `MethodLevels["*"]`, `MethodLevels["DELETE "]`, `MethodLevels["GET"]`, `MethodLevels["GET POST"]`,
		`MethodLevels["Put"]`, `MethodLevels["post"]`, `MethodLevels["post"]`, "RevealOwner",
	}, got)
}

func TestRequirePanicsWithTheFaultsOfAlternatives(t *testing.T) {
	for want, q := range map[string]usher.Requirement{
		"usher.Requirement.AnyOf: must not be empty": usher.AnyOf(),
		"usher.Requirement.AnyOf[1].AnyOf[0].Level: must be one of LevelNone to LevelFull": usher.AnyOf(
			usher.Requirement{}, usher.AnyOf(usher.Requirement{Level: 9})),
	} {
		func() {
			defer func() {
				if err, _ := recover().(error); err == nil || err.Error() != want {
					t.Errorf("recovered %v, want %s", err, want)
				}
			}()
			usher.Require(q)
		}()
	}
}

// A19: a request for the data of another account must not be served, and the response
// must not show that such data exists: OWASP API1:2023.
func TestRequireOwner(t *testing.T) {
	account := func(r *http.Request) string { return r.PathValue("account") }
	hidden := usher.Requirement{Owner: account}
	revealed := usher.Requirement{Owner: account, RevealOwner: true}
	levels := usher.Requirement{Owner: account, Level: usher.LevelFull, Scopes: []string{"a"}}
	tests := map[string]struct {
		want      usher.Requirement
		principal *usher.Principal
		path      string
		status    int
		code      string
	}{
		"its own":                        {hidden, &usher.Principal{Owner: "acme"}, "/acme/notes", 200, ""},
		"another":                        {hidden, &usher.Principal{Owner: "acme"}, "/other/notes", 404, "not_found"},
		"another, revealed":              {revealed, &usher.Principal{Owner: "acme"}, "/other/notes", 403, "wrong_owner"},
		"its own, revealed":              {revealed, &usher.Principal{Owner: "acme"}, "/acme/notes", 200, ""},
		"a longer name":                  {hidden, &usher.Principal{Owner: "acme"}, "/acme2/notes", 404, "not_found"},
		"in another case":                {hidden, &usher.Principal{Owner: "acme"}, "/ACME/notes", 404, "not_found"},
		"an escaped name":                {hidden, &usher.Principal{Owner: "a/b"}, "/a%2Fb/notes", 200, ""},
		"the principal has none":         {hidden, &usher.Principal{ID: "acme"}, "/acme/notes", 404, "not_found"},
		"the route has none":             {hidden, &usher.Principal{Owner: "acme"}, "/notes", 404, "not_found"},
		"neither has an owner":           {hidden, &usher.Principal{ID: "acme"}, "/notes", 404, "not_found"},
		"the scope is refused before":    {levels, &usher.Principal{Owner: "acme", Level: usher.LevelFull}, "/other/notes", 403, "insufficient_scope"},
		"the level is refused before":    {levels, &usher.Principal{Owner: "acme", Scopes: []string{"a"}}, "/other/notes", 403, "insufficient_permission"},
		"only the owner does not match":  {levels, &usher.Principal{Owner: "acme", Level: usher.LevelFull, Scopes: []string{"a"}}, "/other/notes", 404, "not_found"},
		"no principal":                   {hidden, nil, "/acme/notes", 401, "missing_credential"},
		"the owner and one alternative":  {withOwner(account, usher.AnyOf(usher.Requirement{})), &usher.Principal{Owner: "acme"}, "/acme/notes", 200, ""},
		"alternatives need the owner":    {withOwner(account, usher.AnyOf(usher.Requirement{})), &usher.Principal{Owner: "acme"}, "/other/notes", 404, "not_found"},
		"an alternative needs the owner": {usher.AnyOf(hidden), &usher.Principal{Owner: "acme"}, "/other/notes", 404, "not_found"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for way, run := range ways {
				mux := http.NewServeMux()
				h := run(usher.Require(tt.want), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				mux.Handle("/{account}/notes", h)
				mux.Handle("/notes", h)
				mux.HandleFunc("/", usher.NotFound)
				r := httptest.NewRequest(http.MethodGet, tt.path, nil)
				if tt.principal != nil {
					r = usher.WithPrincipal(r, tt.principal)
				}
				w := serve(mux, r)
				equal(t, way+": status", tt.status, w.Code)
				equal(t, way+": code", tt.code, codeOf(t, w))
				if tt.status == 404 {
					none := serve(mux, httptest.NewRequest(http.MethodGet, "/no/such/route", nil))
					equal(t, way+": header of a 404", none.Header(), w.Header())
					equal(t, way+": body of a 404", none.Body.String(), w.Body.String())
				}
			}
		})
	}
}

func withOwner(owner func(*http.Request) string, q usher.Requirement) usher.Requirement {
	q.Owner = owner
	return q
}

func TestRequireAnyOf(t *testing.T) {
	const insufficient = `Bearer error="insufficient_scope", scope=`
	keys := usher.Requirement{Kinds: []usher.Kind{usher.KindAPIKey}, Level: usher.LevelReadWrite}
	tokens := usher.Requirement{Kinds: []usher.Kind{usher.KindJWT, usher.KindOAuth}, Scopes: []string{"notes:write"}}
	either := usher.AnyOf(keys, tokens)
	scoped := usher.AnyOf(keys, tokens)
	scoped.Scopes = []string{"notes"}
	nested := usher.AnyOf(usher.AnyOf(keys), usher.AnyOf(tokens))
	key := func(level usher.Level, scopes ...string) *usher.Principal {
		return &usher.Principal{Kind: usher.KindAPIKey, Level: level, Scopes: scopes}
	}
	token := func(scopes ...string) *usher.Principal { return &usher.Principal{Kind: usher.KindJWT, Scopes: scopes} }
	tests := map[string]struct {
		want      usher.Requirement
		principal *usher.Principal
		status    int
		code      string
		challenge string
	}{
		"the first":                            {either, key(usher.LevelReadWrite), 200, "", ""},
		"the second":                           {either, token("notes:write"), 200, "", ""},
		"the level of a key is too low":        {either, key(usher.LevelReadOnly, "notes:write"), 403, "insufficient_permission", ""},
		"the scope of a token is missing":      {either, token("notes:read"), 403, "insufficient_scope", insufficient + `"notes:write"`},
		"a level does not stand for a scope":   {either, &usher.Principal{Kind: usher.KindOAuth, Level: usher.LevelFull}, 403, "insufficient_scope", insufficient + `"notes:write"`},
		"a kind that no alternative accepts":   {either, &usher.Principal{Kind: usher.KindWebhook, Level: usher.LevelFull, Scopes: []string{"notes:write"}}, 403, "wrong_credential_kind", ""},
		"no principal":                         {either, nil, 401, "missing_credential", "Bearer"},
		"of equals the first refuses":          {usher.AnyOf(usher.Requirement{Scopes: []string{"a"}}, usher.Requirement{Scopes: []string{"b"}}), token(), 403, "insufficient_scope", insufficient + `"a"`},
		"fields of all are met too":            {scoped, token("notes", "notes:write"), 200, "", ""},
		"fields of all are checked first":      {scoped, key(usher.LevelFull), 403, "insufficient_scope", insufficient + `"notes"`},
		"fields of all count for the scopes":   {scoped, token("notes"), 403, "insufficient_scope", insufficient + `"notes notes:write"`},
		"alternatives of alternatives":         {nested, token("notes:write"), 200, "", ""},
		"alternatives of alternatives refuse":  {nested, key(usher.LevelNone), 403, "insufficient_permission", ""},
		"one alternative is a Requirement":     {usher.AnyOf(keys), key(usher.LevelReadWrite), 200, "", ""},
		"one alternative that nothing matches": {usher.AnyOf(keys), token("notes:write"), 403, "wrong_credential_kind", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := get()
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

func TestAlternativesAreCopied(t *testing.T) {
	list := []usher.Requirement{{Level: usher.LevelFull}}
	want := usher.AnyOf(list...)
	list[0].Level = usher.LevelNone
	r := usher.WithPrincipal(get(), &usher.Principal{})
	if got := serve(usher.Require(want).Wrap(http.NotFoundHandler()), r).Code; got != http.StatusForbidden {
		t.Errorf("status %d, want 403", got)
	}
}

// The challenge names the scopes that a token for this resource needs (RFC 6750, section
// 3.1): those of every Require on the way to it.
func TestTheChallengeNamesTheScopesOfAllRequires(t *testing.T) {
	scopes := func(list ...string) usher.Middleware { return usher.Require(usher.Requirement{Scopes: list}) }
	level := usher.Require(usher.Requirement{})
	shared, leaf := scopes("s"), scopes("c")
	webhook := usher.Requirement{Kinds: []usher.Kind{usher.KindWebhook}, Scopes: []string{"x"}}
	tests := map[string]struct {
		m    usher.Middleware
		want string
	}{
		"one":                               {scopes("c", "d"), "c d"},
		"two":                               {usher.Chain(scopes("a"), leaf), "a c"},
		"three, one of another kind":        {usher.Chain(scopes("a"), level, scopes("b", "a"), leaf), "a b c"},
		"each scope once":                   {usher.Chain(scopes("a", "b"), scopes("b", "c")), "a b c"},
		"shared by routes, the first":       {usher.Chain(scopes("a"), shared, leaf), "a s c"},
		"shared by routes, the second":      {usher.Chain(scopes("b"), shared, leaf), "b s c"},
		"those of the alternative that met": {usher.Chain(usher.Require(usher.AnyOf(webhook, usher.Requirement{Scopes: []string{"a"}})), leaf), "a c"},
		"none of an inner Require":          {usher.Chain(leaf, scopes("a")), "c"},
		"another principal inside":          {usher.Chain(scopes("a"), usher.Authenticate(constant{&usher.Principal{}}), leaf), "c"},
	}
	p := &usher.Principal{Scopes: []string{"a", "b", "s"}}
	for range 2 {
		for name, tt := range tests {
			for way, run := range ways {
				w := serve(run(tt.m, http.NotFoundHandler()), usher.WithPrincipal(get(), p))
				equal(t, name+" by "+way, `Bearer error="insufficient_scope", scope="`+tt.want+`"`, w.Header().Get("WWW-Authenticate"))
			}
		}
	}
}

// The scopes of a Require no longer count once it has returned.
func TestScopesEndWithTheirRequire(t *testing.T) {
	a := usher.Require(usher.Requirement{Scopes: []string{"a"}}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	c := usher.Require(usher.Requirement{Scopes: []string{"c"}}).Wrap(http.NotFoundHandler())
	r := usher.WithPrincipal(get(), &usher.Principal{Scopes: []string{"a"}})
	serve(a, r)
	equal(t, "challenge", `Bearer error="insufficient_scope", scope="c"`, serve(c, r).Header().Get("WWW-Authenticate"))
}

// If each request makes a new outer Require, which is a mistake, the inner one must not
// grow.
func TestManyOuterRequires(t *testing.T) {
	leaf := usher.Require(usher.Requirement{Scopes: []string{"c"}})
	const size, requests = 1 << 16, 400
	used := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := used()
	for range requests {
		own := strings.Repeat("a", size)
		outer := usher.Require(usher.Requirement{Scopes: []string{own}})
		p := &usher.Principal{Scopes: []string{own}}
		w := serve(usher.Chain(outer, leaf).Wrap(http.NotFoundHandler()), usher.WithPrincipal(get(), p))
		if got := w.Header().Get("WWW-Authenticate"); got != `Bearer error="insufficient_scope", scope="`+own+` c"` {
			t.Fatalf("challenge %.100s", got)
		}
	}
	if after := used(); after > before+requests*size/4 {
		t.Errorf("%d bytes after %d", after, before)
	}
	runtime.KeepAlive(leaf)
}
