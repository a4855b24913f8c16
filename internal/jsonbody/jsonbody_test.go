package jsonbody_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/jsonbody"
)

func read(body, contentType string, empty jsonbody.Empty) (*jsonbody.Object[usher.Field], error) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return jsonbody.Read[usher.Field](httptest.NewRecorder(), r, 64, empty)
}

func TestRead(t *testing.T) {
	const (
		tooLarge = -1
		refused  = jsonbody.EmptyRefused
		object   = jsonbody.EmptyObject
	)
	tests := map[string]struct {
		body, contentType string
		empty             jsonbody.Empty
		status            int
	}{
		"an object":                       {`{"a":"b"}`, "application/json", refused, 0},
		"with a charset":                  {`{}`, "application/json; charset=utf-8", refused, 0},
		"nothing, which is enough":        {"", "", object, 0},
		"nothing, which is not enough":    {"", "application/json", refused, 400},
		"null":                            {" null\n", "application/json", object, 400},
		"an array":                        {`[]`, "application/json", refused, 400},
		"a text":                          {`"a"`, "application/json", refused, 400},
		"half an object":                  {`{"a":`, "application/json", refused, 400},
		"two objects":                     {`{} {}`, "application/json", refused, 400},
		"a form":                          {`a=b`, "application/x-www-form-urlencoded", refused, 415},
		"an object that claims to be":     {`{}`, "text/plain", refused, 415},
		"an object of no type":            {`{}`, "", refused, 415},
		"a name twice":                    {`{"a":1,"b":2,"a":1}`, "application/json", refused, 400},
		"a name twice, once escaped":      {`{"a":1,"\u0061":1}`, "application/json", refused, 400},
		"a name twice, further inside":    {`{"a":[{"b":1,"b":1}]}`, "application/json", refused, 400},
		"names that differ by case":       {`{"a":1,"A":2}`, "application/json", refused, 0},
		"invalid UTF-8":                   {"{\"a\":\"\xff\"}", "application/json", refused, 400},
		"a surrogate in UTF-8":            {"{\"a\":\"\xed\xa0\x80\"}", "application/json", refused, 400},
		"half a pair of surrogates":       {`{"a":"\ud83d"}`, "application/json", refused, 400},
		"surrogates in the wrong order":   {`{"a":"\udc11\ud83d"}`, "application/json", refused, 400},
		"a pair of surrogates":            {`{"a":"\ud83d\udc11"}`, "application/json", refused, 0},
		"NUL in a value":                  {`{"a":"x\u0000"}`, "application/json", refused, 400},
		"NUL after a backslash":           {`{"a":"\\\u0000"}`, "application/json", refused, 400},
		"NUL in a name":                   {`{"\u0000":"x"}`, "application/json", refused, 400},
		"a backslash before u0000":        {`{"a":"\\u0000"}`, "application/json", refused, 0},
		"a byte order mark":               {"\ufeff{}", "application/json", refused, 400},
		"an object at the limit":          {`{"a":"` + strings.Repeat("x", 56) + `"}`, "application/json", refused, 0},
		"an object one over the limit":    {`{"a":"` + strings.Repeat("x", 57) + `"}`, "application/json", refused, tooLarge},
		"something large that is no JSON": {strings.Repeat("x", 1<<20), "application/json", refused, tooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o, err := read(tt.body, tt.contentType, tt.empty)
			e, _ := errors.AsType[*jsonbody.Error](err)
			_, large := errors.AsType[*http.MaxBytesError](err)
			switch {
			case tt.status == 0 && (err != nil || o == nil),
				tt.status > 0 && (e == nil || e.Status != tt.status),
				large != (tt.status == tooLarge):
				t.Errorf("%v, %v; want status %d", o, err, tt.status)
			}
		})
	}
}

func TestMembersAreTakenByTheirExactNamesAndTypes(t *testing.T) {
	type fields struct {
		text   string
		list   []string
		number int32
		level  usher.Level
		at     time.Time
	}
	tests := map[string]struct {
		body, faults string
	}{
		"all well":    {`{"text":"a","list":["b"],"number":1,"level":"full"}`, ""},
		"a null time": {`{"text":"a","at":null}`, ""},
		"a time that is not set": {`{"text":"a","at":"0001-01-01T02:00:00+02:00"}`,
			"'at' must be a time such as 2006-01-02T15:04:05Z, or null."},
		"a null number":         {`{"text":"a","number":null}`, "'number' must be a whole number."},
		"none that is needed":   {`{}`, "'text' is required."},
		"a null that is needed": {`{"text":null}`, "'text' is required."},
		"a name in other case":  {`{"Text":"a"}`, "'text' is required. There is no such field."},
		"wrong types": {`{"text":1,"list":"b","number":1.5,"level":"most","at":"today"}`,
			"'text' must be a string. 'list' must be a list of strings. 'number' must be a whole number. " +
				"'level' must be none, read_only, read_write or full. 'at' must be a time such as 2006-01-02T15:04:05Z, or null."},
		"unknown members": {`{"text":"a","x":1,"y":2}`, "There is no such field. There is no such field."},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tt.body))
			r.Header.Set("Content-Type", "application/json")
			o, err := jsonbody.Read[usher.Field](httptest.NewRecorder(), r, 1<<10, jsonbody.EmptyRefused)
			if err != nil {
				t.Fatal(err)
			}
			var f fields
			o.Required("text", &f.text)
			o.Optional("list", &f.list)
			o.Optional("number", &f.number)
			o.OptionalAs("level", &f.level, "none, read_only, read_write or full")
			o.Optional("at", &f.at)
			var messages []string
			for _, f := range o.Faults() {
				messages = append(messages, f.Message)
			}
			if got := strings.Join(messages, " "); got != tt.faults {
				t.Errorf("faults %q, want %q", got, tt.faults)
			}
		})
	}
}

// A form, a link and fetch in no-cors mode send nothing that needs a preflight. So a page of
// another origin could otherwise have a browser send an empty body with the cookies of its
// user.
func TestAnEmptyBodyFromAPageOfAnotherOriginIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		field, value, contentType string
		empty                     jsonbody.Empty
		refused                   bool
	}{
		"a page of another site":                  {"Sec-Fetch-Site", "cross-site", "", jsonbody.EmptySameOrigin, true},
		"a page of another site with a form":      {"Sec-Fetch-Site", "cross-site", "application/x-www-form-urlencoded", jsonbody.EmptySameOrigin, true},
		"a page of another host of the site":      {"Sec-Fetch-Site", "same-site", "", jsonbody.EmptySameOrigin, true},
		"an old browser, another origin":          {"Origin", "https://evil.example", "", jsonbody.EmptySameOrigin, true},
		"a sandboxed page":                        {"Origin", "null", "text/plain", jsonbody.EmptySameOrigin, true},
		"a page of another site, after preflight": {"Sec-Fetch-Site", "cross-site", "application/json", jsonbody.EmptySameOrigin, false},
		"a page of this origin":                   {"Sec-Fetch-Site", "same-origin", "", jsonbody.EmptySameOrigin, false},
		"an old browser, this origin":             {"Origin", "https://example.com", "", jsonbody.EmptySameOrigin, false},
		"a program":                               {"User-Agent", "curl/8", "", jsonbody.EmptySameOrigin, false},
		"a caller that decides itself":            {"Sec-Fetch-Site", "cross-site", "", jsonbody.EmptyObject, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "https://example.com/", http.NoBody)
			r.Header.Set(tt.field, tt.value)
			if tt.contentType != "" {
				r.Header.Set("Content-Type", tt.contentType)
			}
			o, err := jsonbody.Read[usher.Field](httptest.NewRecorder(), r, 64, tt.empty)
			e, _ := errors.AsType[*jsonbody.Error](err)
			if tt.refused && (e == nil || e.Status != http.StatusForbidden) || !tt.refused && (err != nil || len(o.Faults()) > 0) {
				t.Errorf("%v, %v", o, err)
			}
		})
	}
}
