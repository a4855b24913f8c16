// Package malformed says what is wrong with a request, from the errors of the libraries
// that decode and validate requests. The adapters of gin and echo do so by it.
package malformed

import (
	"encoding/json"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode"

	"github.com/usher-go/usher"
)

// Of returns the error of [usher.Invalid] for a request that could not be decoded into in,
// or that is not valid in, and reports whether err says so:
//
//	if err := json.NewDecoder(r.Body).Decode(&order); err != nil {
//		if e, ok := malformed.Of(err, &order); ok {
//			err = e
//		}
//		usher.Fail(w, r, err)
//		return
//	}
//
// It knows the errors of encoding/json, also for a body that is empty or breaks off, and
// those of github.com/go-playground/validator. Call it only with what has decoded or
// validated a request: the same errors about a document of another server are no fault of
// the client.
//
// Fields are named as clients know them, by the tags json, form, query, param, uri and
// header of in. If in is nil, they are named as in err, which for the validator is by
// its RegisterTagNameFunc. Clients may choose names, for instance those of unknown fields, so
// long ones are cut, as are names that cannot be printed, and at most 100 fields are listed.
// No text of err is sent, as it has names of the program; err is
// the Cause.
func Of(err error, in any) (*usher.Error, bool) {
	fields, known := faults(err, reflect.TypeOf(in))
	if !known {
		return nil, false
	}
	for i, f := range fields {
		fields[i].Name = shown(f.Name)
	}
	e := usher.Invalid(fields...)
	switch {
	case len(fields) == 0:
		e.Message = "The request body is not valid JSON."
	case len(fields) == 1 && fields[0].Name == "":
		e.Message, e.Fields = "The request body "+fields[0].Message+".", nil
	default:
		for i, f := range fields {
			fields[i].Message = "'" + f.Name + "' " + f.Message + "."
		}
	}
	e.Cause = err
	return e, true
}

const (
	// maxFields is the maximum number of fields in a response: the response to a list of
	// invalid items must not be many times as large as the list.
	maxFields = 100
	// maxName is the maximum number of bytes of a name before it is cut.
	maxName = 200
)

// shown returns name up to its maximum, or to what cannot be printed.
func shown(name string) string {
	for i, r := range name {
		if i >= maxName || !unicode.IsPrint(r) {
			return name[:i] + "..."
		}
	}
	return name
}

// faults returns the faulty fields that err is about, and whether err is about a request
// that is not valid. A request of the type in was to be decoded.
func faults(err error, in reflect.Type) (fields []usher.Field, known bool) {
	switch e := err.(type) { //nolint:errorlint // each error of the tree is visited
	case nil:
		return nil, false
	case *json.SyntaxError:
		return nil, true
	case *json.UnmarshalTypeError:
		return []usher.Field{{Name: e.Field, Message: mismatch(e)}}, true
	case interface{ Unwrap() error }:
		return faults(e.Unwrap(), in)
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // of a decoder, which does not wrap them
		return nil, true
	}
	if quoted, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		if name, err := strconv.Unquote(quoted); err == nil {
			return []usher.Field{{Name: name, Message: "is not known"}}, true
		}
	}
	// The errors of a validator, of the elements of a list, and errors that are joined.
	list := reflect.ValueOf(err)
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = reflect.ValueOf(joined.Unwrap())
	}
	if list.Kind() != reflect.Slice {
		return nil, false
	}
	for i := 0; i < list.Len() && len(fields) < maxFields; i++ {
		switch e := list.Index(i).Interface().(type) {
		case fieldError:
			fields, known = append(fields, usher.Field{Name: fieldName(e, in), Message: violation(e)}), true
		case error:
			inner, ok := faults(e, in)
			fields, known = append(fields, inner...), known || ok
		}
	}
	return fields[:min(len(fields), maxFields)], known
}

// mismatch describes what JSON was expected, in the words of JSON: the client does not
// know the types of the program.
func mismatch(e *json.UnmarshalTypeError) string {
	want := "is not valid"
	t := indirect(e.Type)
	if t == nil {
		return want // of another decoder
	}
	switch t.Kind() {
	case reflect.Bool:
		want = "must be a boolean"
	case reflect.String:
		want = "must be a string"
	case reflect.Slice, reflect.Array:
		want = "must be an array"
	case reflect.Map, reflect.Struct:
		want = "must be an object"
	case reflect.Float32, reflect.Float64:
		want = "must be a number"
	default:
		if t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64 {
			want = "must be an integer"
		}
	}
	if number, ok := strings.CutPrefix(e.Value, "number "); ok && !strings.ContainsAny(number, ".eE") {
		want = "is out of range"
	}
	return want
}
