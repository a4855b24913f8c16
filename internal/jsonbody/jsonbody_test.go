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

func read(body, contentType string, required bool) (*jsonbody.Object[usher.Field], error) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return jsonbody.Read[usher.Field](httptest.NewRecorder(), r, 64, required)
}

func TestRead(t *testing.T) {
	const tooLarge = -1
	tests := map[string]struct {
		body, contentType string
		required          bool
		status            int
	}{
		"an object":                       {`{"a":"b"}`, "application/json", true, 0},
		"with a charset":                  {`{}`, "application/json; charset=utf-8", true, 0},
		"nothing, which is enough":        {"", "", false, 0},
		"nothing, which is not enough":    {"", "application/json", true, 400},
		"null":                            {" null\n", "application/json", false, 400},
		"an array":                        {`[]`, "application/json", true, 400},
		"a text":                          {`"a"`, "application/json", true, 400},
		"half an object":                  {`{"a":`, "application/json", true, 400},
		"two objects":                     {`{} {}`, "application/json", true, 400},
		"a form":                          {`a=b`, "application/x-www-form-urlencoded", true, 415},
		"an object that claims to be":     {`{}`, "text/plain", true, 415},
		"an object of no type":            {`{}`, "", true, 415},
		"an object at the limit":          {`{"a":"` + strings.Repeat("x", 56) + `"}`, "application/json", true, 0},
		"an object one over the limit":    {`{"a":"` + strings.Repeat("x", 57) + `"}`, "application/json", true, tooLarge},
		"something large that is no JSON": {strings.Repeat("x", 1<<20), "application/json", true, tooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o, err := read(tt.body, tt.contentType, tt.required)
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
			o, err := jsonbody.Read[usher.Field](httptest.NewRecorder(), r, 1<<10, true)
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
