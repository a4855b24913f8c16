// Package malformed says what is wrong with a request, from the errors of the libraries
// that decode and validate requests. The adapters of gin and echo do so by it.
package malformed

import (
	"encoding/json"
	"io"
	"reflect"
	"strconv"
	"strings"

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
// its RegisterTagNameFunc. No text of err is sent, as it has names of the program; err is
// the Cause.
func Of(err error, in any) (*usher.Error, bool) {
	fields, known := faults(err, reflect.TypeOf(in))
	if !known {
		return nil, false
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
	for i := range list.Len() {
		switch e := list.Index(i).Interface().(type) {
		case fieldError:
			fields, known = append(fields, usher.Field{Name: fieldName(e, in), Message: violation(e)}), true
		case error:
			inner, ok := faults(e, in)
			fields, known = append(fields, inner...), known || ok
		}
	}
	return fields, known
}

// mismatch describes what JSON was expected, in the words of JSON: the client does not
// know the types of the program.
func mismatch(e *json.UnmarshalTypeError) string {
	want := "is not valid"
	switch t := indirect(e.Type); t.Kind() {
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

// A fieldError is a validator.FieldError of github.com/go-playground/validator, which this
// module does not link.
type fieldError interface {
	error
	Tag() string
	Param() string
	Kind() reflect.Kind
	Namespace() string
	StructNamespace() string
}

// violation describes what a value must be. The names of other tags, and the parameters of
// those that compare fields, are names of the program.
func violation(e fieldError) string {
	limit := e.Param()
	switch e.Kind() {
	case reflect.String:
		limit += " characters"
	case reflect.Slice, reflect.Array, reflect.Map:
		limit += " items"
	}
	counted := limit != e.Param()
	if e.Param() == "1" {
		limit = strings.TrimSuffix(limit, "s")
	}
	be := "must be "
	if counted {
		be = "must have "
	}
	switch e.Tag() {
	case "required", "required_if", "required_unless", "required_with", "required_with_all", "required_without", "required_without_all":
		return "is required"
	case "min", "gte":
		return be + "at least " + limit
	case "max", "lte":
		return be + "at most " + limit
	case "gt":
		return be + "more than " + limit
	case "lt":
		return be + "less than " + limit
	case "len", "eq":
		if counted && e.Tag() == "eq" && e.Kind() == reflect.String {
			break // the value, not a length
		}
		return be + limit
	case "oneof":
		return "must be one of: " + strings.Join(strings.Fields(e.Param()), ", ")
	case "email":
		return "must be an email address"
	case "url", "http_url":
		return "must be a URL"
	case "uri":
		return "must be a URI"
	case "uuid", "uuid3", "uuid4", "uuid5", "uuid_rfc4122":
		return "must be a UUID"
	case "numeric", "number":
		return "must be a number"
	case "boolean":
		return "must be a boolean"
	}
	return "is not valid"
}

// fieldName returns the name of a field of in for clients. Validators begin namespaces
// with the name of the type, if it has one.
func fieldName(e fieldError, in reflect.Type) string {
	path, t := e.StructNamespace(), indirect(in)
	for t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		t = indirect(t.Elem())
	}
	if t == nil || t.Kind() != reflect.Struct {
		first, rest, found := strings.Cut(e.Namespace(), ".")
		if found && strings.HasPrefix(path, first+".") {
			return rest
		}
		return e.Namespace()
	}
	path = strings.TrimPrefix(path, t.Name()+".")
	var name strings.Builder
	for path != "" {
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		f, ok := fieldOf(t, path[:end])
		if !ok {
			// Of a type that only the value knows.
			name.WriteString(path)
			break
		}
		path, t = path[end:], indirect(f.Type)
		shown, tagged := tagName(&f)
		if hidden := f.Anonymous && !tagged; !hidden {
			if name.Len() > 0 {
				name.WriteByte('.')
			}
			name.WriteString(shown)
		}
		for strings.HasPrefix(path, "[") && t != nil {
			end := strings.IndexByte(path, ']') + 1
			if end == 0 {
				end = len(path)
			}
			name.WriteString(path[:end])
			if path = path[end:]; t.Kind() == reflect.Slice || t.Kind() == reflect.Array || t.Kind() == reflect.Map {
				t = indirect(t.Elem())
			}
		}
		path = strings.TrimPrefix(path, ".")
	}
	return name.String()
}

func fieldOf(t reflect.Type, name string) (reflect.StructField, bool) {
	if t == nil || t.Kind() != reflect.Struct {
		return reflect.StructField{}, false
	}
	return t.FieldByName(name)
}

// tagName returns the name of f for clients, and whether a tag gives it.
func tagName(f *reflect.StructField) (name string, tagged bool) {
	for _, key := range [...]string{"json", "form", "query", "param", "uri", "header"} {
		name, _, _ := strings.Cut(f.Tag.Get(key), ",")
		if name != "" && name != "-" {
			return name, true
		}
	}
	return f.Name, false
}

func indirect(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}
