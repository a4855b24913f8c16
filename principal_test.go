package usher_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/usher-go/usher"
)

func TestHasScopes(t *testing.T) {
	tests := map[string]struct {
		granted, asked []string
		want           bool
	}{
		"nothing of nothing":     {nil, nil, true},
		"nothing of something":   {[]string{"a"}, nil, true},
		"something of nothing":   {nil, []string{"a"}, false},
		"all":                    {[]string{"a", "b"}, []string{"b", "a"}, true},
		"one is missing":         {[]string{"a", "b"}, []string{"a", "c"}, false},
		"no scope is a prefix":   {[]string{"notes"}, []string{"notes:write"}, false},
		"no scope is a wildcard": {[]string{"*"}, []string{"a"}, false},
		"case matters":           {[]string{"A"}, []string{"a"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := (usher.Principal{Scopes: tt.granted}).HasScopes(tt.asked...); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestLevelText(t *testing.T) {
	for level, name := range map[usher.Level]string{
		usher.LevelNone: "none", usher.LevelReadOnly: "read_only", usher.LevelReadWrite: "read_write", usher.LevelFull: "full",
	} {
		t.Run(name, func(t *testing.T) {
			equal(t, "String", name, level.String())
			b, err := json.Marshal(map[string]usher.Level{"level": level})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "JSON", `{"level":"`+name+`"}`, string(b))
			var got struct{ Level usher.Level }
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			equal(t, "level", level, got.Level)
		})
	}
	level := usher.LevelFull
	if err := level.UnmarshalText(nil); err != nil || level != usher.LevelNone {
		t.Errorf("empty text: %v, %v", level, err)
	}
	level = usher.LevelReadOnly
	for _, text := range []string{"FULL", "root", "3", "read only", "Level(3)"} {
		if err := level.UnmarshalText([]byte(text)); err == nil || level != usher.LevelReadOnly {
			t.Errorf("%q: %v, %v", text, level, err)
		}
	}
	equal(t, "String of no level", "Level(9)", usher.Level(9).String())
	if b, err := usher.Level(9).MarshalText(); err == nil {
		t.Errorf("no level became %q", b)
	}
}

func TestLevelsAreOrdered(t *testing.T) {
	levels := []usher.Level{usher.LevelNone, usher.LevelReadOnly, usher.LevelReadWrite, usher.LevelFull}
	if !slices.IsSorted(levels) || len(slices.Compact(levels)) != 4 {
		t.Error("the levels do not rise")
	}
	if (usher.Principal{}).Level != usher.LevelNone {
		t.Error("the zero Principal may do something")
	}
}

func TestPrincipalFrom(t *testing.T) {
	alice, bob := &usher.Principal{ID: "alice"}, &usher.Principal{ID: "bob"}
	if p, ok := usher.PrincipalFrom(t.Context()); ok {
		t.Errorf("a bare context has %v", p)
	}
	bare := get()
	if p, ok := usher.PrincipalFrom(usher.Track(bare).Context()); ok {
		t.Errorf("a tracked request has %v", p)
	}
	r := usher.WithPrincipal(bare, alice)
	if r == bare {
		t.Error("a bare request was not copied")
	}
	if p, ok := usher.PrincipalFrom(bare.Context()); ok {
		t.Errorf("the original has %v", p)
	}
	if usher.WithPrincipal(r, bob) != r || usher.Track(r) != r {
		t.Error("the request was copied twice")
	}
	p, ok := usher.PrincipalFrom(r.Context())
	if !ok || p.ID != "bob" {
		t.Errorf("got %v, %t", p, ok)
	}
	// PrincipalFrom returns a copy, which a handler may change.
	p.ID = "mallory"
	if p, _ := usher.PrincipalFrom(r.Context()); p.ID != "bob" {
		t.Errorf("got %v", p)
	}
	type key struct{}
	if p, ok := usher.PrincipalFrom(contextWith(r.Context(), key{})); !ok || p.ID != "bob" {
		t.Errorf("a derived context has %v, %t", p, ok)
	}
	if _, ok := usher.PrincipalFrom(usher.WithPrincipal(r, &usher.Principal{}).Context()); !ok {
		t.Error("a principal without an ID is none")
	}
	if p, ok := usher.PrincipalFrom(usher.WithPrincipal(r, nil).Context()); ok {
		t.Errorf("without a principal: %v", p)
	}
}

func TestAnOuterAccessLogSeesWhoCalled(t *testing.T) {
	var who string
	accessLog := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tracked := usher.Track(r)
			next.ServeHTTP(w, tracked)
			r.MultipartForm = tracked.MultipartForm
			p, _ := usher.PrincipalFrom(tracked.Context())
			who = p.ID
		})
	}
	// There is a middleware of another package in between.
	type key struct{}
	between := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(contextWith(r.Context(), key{})))
		})
	}
	h := accessLog(between(usher.Authenticate(field("A")).Wrap(http.NotFoundHandler())))
	serve(h, get("A", "good"))
	equal(t, "good", "A good", who)
	serve(h, get("A", "bad"))
	equal(t, "bad", "", who)
}
