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
			for _, err := range []error{err, fmt.Errorf("decode: %w", err), errors.Join(errors.New("private"), err)} {
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
