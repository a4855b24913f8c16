package apikey_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

var deceptive = map[string]string{
	"NUL":                                  "a\x00b",
	"an escape":                            "a\x1b[31mb",
	"a C1 control":                         "a\u0085b",
	"invalid UTF-8":                        "a\xffb",
	"a right-to-left override":             "a\u202ecba",
	"a right-to-left isolate":              "a\u2067b\u2069",
	"a left-to-right mark":                 "a\u200eb",
	"an Arabic letter mark":                "a\u061cb",
	"a zero-width blank":                   "ad\u200bmin",
	"a word joiner":                        "ad\u2060min",
	"a byte order mark":                    "ad\ufeffmin",
	"a soft hyphen":                        "ad\u00admin",
	"a tag that hides ASCII":               "admin\U000e0061",
	"an annotation":                        "a\ufff9b\ufffbc",
	"a line separator":                     "a\u2028b",
	"a paragraph separator":                "a\u2029b",
	"a Hangul filler":                      "a\u3164b",
	"a half-width Hangul filler":           "a\uffa0b",
	"a blank of Braille":                   "a\u2800b",
	"a grapheme joiner":                    "a\u034fb",
	"a joiner in Latin":                    "ad\u200dmin",
	"a joiner in Cyrillic":                 "\u0430\u0434\u200d\u043c",
	"a joiner in Chinese":                  "\u65e5\u200d\u672c",
	"a joiner after an accent":             "e\u0301\u200db",
	"a joiner at the start":                "\u200da",
	"a joiner at the end":                  "\u0645\u200d",
	"a joiner twice":                       "\u0645\u200d\u200d\u0645",
	"a non-joiner before a blank":          "\u200c a",
	"a variation selector after a letter":  "a\ufe0fb",
	"a variation selector at the start":    "\ufe0fa",
	"a variation selector twice":           "\u2764\ufe0f\ufe0f",
	"a supplementary variation selector":   "\u845b\U000e0100",
	"a Mongolian variation selector alone": "a\u180bb",
}

// faultsOf returns the names of the fields that a 400 names.
func faultsOf(err error) string {
	e, ok := errors.AsType[*usher.Error](err)
	if !ok || e.Status != 400 {
		return fmt.Sprint(err)
	}
	var names []string
	for _, f := range e.Fields {
		names = append(names, f.Name)
	}
	return strings.Join(names, " ")
}

func TestNamesAndDescriptionsShowAllTheyHave(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{Store: apikey.NewMemory(), MaxActive: 1000})
	k, _ := create(t, m, apikey.Key{Owner: "ann", Name: "x"})
	for name, text := range deceptive {
		t.Run(name, func(t *testing.T) {
			if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: text}); faultsOf(err) != "name" {
				t.Errorf("create with the name %q: %v", text, err)
			}
			if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x", Description: text}); faultsOf(err) != "description" {
				t.Errorf("create with the description %q: %v", text, err)
			}
			_, err := m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.Name, k.Description = text, text })
			if faultsOf(err) != "name description" {
				t.Errorf("update to %q: %v", text, err)
			}
		})
	}
}

func TestNamesInEveryScriptAreAccepted(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{Store: apikey.NewMemory(), MaxActive: 1000})
	for _, text := range []string{
		"deploy (staging) #2 \u2014 eu", "\u00dcbersetzung", "e\u0301tude", "\u540d\u3000\u524d", "\ud55c\uae00", "\u0442\u0435\u0441\u0442",
		"\u0645\u0641\u062a\u0627\u062d", "\u05de\u05e4\u05ea\u05d7",
		"\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",           // Persian, with a non-joiner
		"\u0915\u094d\u200d\u0937", "\u0dc1\u0dca\u200d\u0dbb\u0dd3", // Hindi and Sinhala, with a joiner
		"\U0001f680", "\u2764\ufe0f", "\u2764\ufe0f\u200d\U0001f525", "\U0001f469\u200d\U0001f4bb",
		"\U0001f469\U0001f3fd\u200d\U0001f680", "\U0001f3f3\ufe0f\u200d\U0001f308", "\u00a9\ufe0e",
	} {
		k, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: text, Description: text + "\r\n\tmore\n"})
		if err != nil || k.Name != text {
			t.Errorf("%q: %q, %v", text, k.Name, err)
		}
	}
}

func TestNamesHaveNoBlanksAround(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{Store: apikey.NewMemory()})
	for _, blank := range []string{" ", "\u00a0", "\u2003", "\u202f", "\u3000"} {
		for _, name := range []string{blank, strings.Repeat(blank, 3), blank + "ci", "ci" + blank} {
			if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: name}); faultsOf(err) != "name" {
				t.Errorf("%q: %v", name, err)
			}
		}
		if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x", Description: blank + blank}); faultsOf(err) != "description" {
			t.Errorf("a description of %q: %v", blank, err)
		}
	}
}

// A key whose name was accepted under other rules can still be changed, rotated and
// revoked.
func TestOldNamesStrandNoKey(t *testing.T) {
	s := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{Store: s, MaxActive: 1000})
	n := 0
	for name, text := range deceptive {
		if strings.HasPrefix(name, "NUL") || strings.HasPrefix(name, "invalid") {
			continue // no store has kept it
		}
		n++
		k, _ := create(t, m, apikey.Key{Owner: "ann"})
		r, err := s.Find(t.Context(), "ann", k.ID)
		if err != nil {
			t.Fatal(err)
		}
		r.Name, r.Description = text+" ", " "
		if err := s.Update(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		k, err = m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.Scopes = []string{"a"} })
		if err != nil || k.Name != text+" " {
			t.Errorf("update of %q: %q, %v", text, k.Name, err)
		}
		next, _, err := m.Rotate(t.Context(), server, "ann", k.ID, 0)
		if err != nil || next.Name != text+" " {
			t.Errorf("rotate of %q: %q, %v", text, next.Name, err)
		}
		if _, err := m.Update(t.Context(), server, "ann", next.ID, func(k *apikey.Key) { k.Name = fmt.Sprint(n) }); err != nil {
			t.Errorf("a new name in place of %q: %v", text, err)
		}
	}
}
