package malformed_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/malformed"
)

func TestOf(t *testing.T) {
	type order struct {
		Title    string `json:"title"`
		Quantity int8   `json:"quantity"`
		Lines    []struct {
			Price float64 `json:"price"`
		} `json:"lines"`
	}
	const syntax = "The request body is not valid JSON."
	const fields = "The request is not valid."
	for _, tt := range []struct {
		body    string
		message string
		fields  []usher.Field
	}{
		{`no JSON`, syntax, nil},
		{`{"title":`, syntax, nil},
		{``, syntax, nil},
		{`{"title":7}`, fields, []usher.Field{{Name: "title", Message: "'title' must be a string."}}},
		{`{"quantity":1.5}`, fields, []usher.Field{{Name: "quantity", Message: "'quantity' must be an integer."}}},
		{`{"quantity":300}`, fields, []usher.Field{{Name: "quantity", Message: "'quantity' is out of range."}}},
		{`{"lines":{}}`, fields, []usher.Field{{Name: "lines", Message: "'lines' must be an array."}}},
		{`{"lines":[{"price":"1"}]}`, fields, []usher.Field{{Name: "lines.price", Message: "'lines.price' must be a number."}}},
		{`[]`, "The request body must be an object.", nil},
		{`{"title":"","more":1}`, fields, []usher.Field{{Name: "more", Message: "'more' is not known."}}},
	} {
		t.Run(tt.body, func(t *testing.T) {
			d := json.NewDecoder(strings.NewReader(tt.body))
			d.DisallowUnknownFields()
			err := d.Decode(new(order))
			for _, err := range []error{err, fmt.Errorf("decode: %w", err), errors.Join(errors.New("private"), err), errors.Join(err, errors.New("private"))} {
				e, ok := malformed.Of(err, nil)
				if !ok {
					t.Fatalf("%v is not known", err)
				}
				want := usher.Error{Status: 400, Code: usher.CodeValidationFailed, Message: tt.message, Fields: tt.fields, Cause: err}
				if !reflect.DeepEqual(*e, want) {
					t.Errorf("%+v became %+v, want %+v", err, *e, want)
				}
			}
		})
	}
}

func TestOfLeavesOthersAlone(t *testing.T) {
	for _, err := range []error{
		nil, errors.New("private"), errors.Join(io.ErrClosedPipe, io.ErrNoProgress), http.ErrBodyReadAfterClose,
		&http.MaxBytesError{Limit: 1}, &usher.Error{Status: 409},
	} {
		if e, ok := malformed.Of(err, nil); ok {
			t.Errorf("%v became %v", err, e)
		}
	}
}

// Clients choose the names of unknown fields and the number of items.
func TestResponsesToHostileRequestsAreSmall(t *testing.T) {
	for key, want := range map[string]string{
		strings.Repeat("k", 1<<20): strings.Repeat("k", 200) + "...",
		strings.Repeat("é", 150):   strings.Repeat("é", 100) + "...",
		`a\u0000b`:                 "a...",
		"\u202e":                   "...",
		"a\u2028b":                 "a...",
		"a b-é":                    "a b-é",
	} {
		d := json.NewDecoder(strings.NewReader(`{"` + key + `":1}`))
		d.DisallowUnknownFields()
		e, ok := malformed.Of(d.Decode(new(struct{})), nil)
		if !ok || len(e.Fields) != 1 || e.Fields[0] != (usher.Field{Name: want, Message: "'" + want + "' is not known."}) {
			t.Errorf("%.20q: %t, %.300q", key, ok, e.Fields)
		}
	}
	for name, err := range map[string]error{"a list": faulty(1000), "lists": errors.Join(faulty(60), faulty(60), faulty(60))} {
		if e, ok := malformed.Of(err, nil); !ok || len(e.Fields) != 100 || e.Fields[99].Message == "" {
			t.Errorf("%s: %t, %d fields", name, ok, len(e.Fields))
		}
	}
}

// faulty returns the error of a validator for n fields.
func faulty(n int) error {
	list := make(fault, n)
	for i := range list {
		list[i] = violated{tag: "required"}
	}
	return list
}

type fault []error

func (fault) Error() string { return "private" }

// A violated is a validator.FieldError.
type violated struct {
	tag, param            string
	kind                  reflect.Kind
	name, structNamespace string
}

func (violated) Error() string             { return "private" }
func (v violated) Tag() string             { return v.tag }
func (v violated) Param() string           { return v.param }
func (v violated) Kind() reflect.Kind      { return v.kind }
func (v violated) Namespace() string       { return v.name }
func (v violated) StructNamespace() string { return v.structNamespace }

func TestOfShowsNoTypeOfTheProgram(t *testing.T) {
	for _, tt := range []struct {
		v    violated
		want usher.Field
	}{
		{violated{"required", "", 0, "order.title", "order.Title"}, usher.Field{Name: "title", Message: "'title' is required."}},
		{
			violated{"required", "", 0, "page[example.com/private/store.order].title", "page[example.com/private/store.order].Title"},
			usher.Field{Name: "title", Message: "'title' is required."},
		},
		{violated{"gt", "", reflect.Struct, "order.due", "order.Due"}, usher.Field{Name: "due", Message: "'due' must be in the future."}},
		{violated{"lte", "", reflect.Struct, "order.due", "order.Due"}, usher.Field{Name: "due", Message: "'due' must be in the past."}},
		{violated{"gt", "3", reflect.Int, "order.n", "order.N"}, usher.Field{Name: "n", Message: "'n' must be more than 3."}},
	} {
		if e, ok := malformed.Of(fault{tt.v}, nil); !ok || len(e.Fields) != 1 || e.Fields[0] != tt.want {
			t.Errorf("%+v: %t, %v", tt.v, ok, e.Fields)
		}
	}
	if e, ok := malformed.Of(&json.UnmarshalTypeError{Value: "string", Field: "title"}, nil); !ok || e.Fields[0].Message != "'title' is not valid." {
		t.Errorf("without a type: %t, %v", ok, e)
	}
}

func ExampleOf() {
	create := func(w http.ResponseWriter, r *http.Request) {
		var order struct {
			Quantity int `json:"quantity"`
		}
		if err := json.NewDecoder(r.Body).Decode(&order); err != nil {
			if e, ok := malformed.Of(err, &order); ok {
				err = e
			}
			usher.Fail(w, r, err)
			return
		}
	}
	w := httptest.NewRecorder()
	create(w, httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(`{"quantity":"two"}`)))
	fmt.Println(w.Body)
	// Output:
	// {"type":"about:blank","title":"Bad Request","status":400,"detail":"The request is not valid.","code":"validation_failed","errors":[{"field":"quantity","message":"'quantity' must be an integer."}]}
}
