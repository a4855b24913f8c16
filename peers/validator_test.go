package peers_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-playground/validator/v10"
	echo4 "github.com/labstack/echo/v4"
	"github.com/labstack/echo/v5"

	"github.com/usher-go/usher/adapters/usherecho"
	"github.com/usher-go/usher/adapters/usherecho4"
)

// byTag is an Echo.Validator as the documentation of echo has it.
type byTag struct{ of *validator.Validate }

func (v byTag) Validate(in any) error { return v.of.Struct(in) }

// The errors of go-playground/validator in echo are 400 with the faulty fields, by the
// names of clients if the adapter's Validator is set.
func TestValidatorOfEcho(t *testing.T) {
	type page struct {
		Size int `query:"size" validate:"max=10"`
	}
	type order struct {
		page

		Title string   `json:"title"     validate:"required"`
		Tags  []string `json:"tags"      validate:"dive,oneof=new old"`
		Owner *struct {
			Mail string `json:"mail,omitempty" validate:"email"`
		} `json:"owner"`
	}
	const head = `{"type":"about:blank","title":"Bad Request","status":400,"detail":"The request is not valid.","code":"validation_failed","errors":[`
	const named = head + `{"field":"size","message":"'size' must be at most 10."},{"field":"title","message":"'title' is required."},` +
		`{"field":"tags[0]","message":"'tags[0]' must be one of: new, old."},{"field":"owner.mail","message":"'owner.mail' must be an email address."}]}`
	const unnamed = head + `{"field":"page.Size","message":"'page.Size' must be at most 10."},{"field":"Title","message":"'Title' is required."},` +
		`{"field":"Tags[0]","message":"'Tags[0]' must be one of: new, old."},{"field":"Owner.Mail","message":"'Owner.Mail' must be an email address."}]}`
	const body = `{"Size":11,"tags":["odd"],"owner":{"mail":"ann"}}`

	five, four := echo.New(), echo4.New()
	five.HTTPErrorHandler, four.HTTPErrorHandler = usherecho.HTTPErrorHandler, usherecho4.HTTPErrorHandler
	five.POST("/", func(c *echo.Context) error {
		in := new(order)
		if err := c.Bind(in); err != nil {
			return err
		}
		return c.Validate(in)
	})
	four.POST("/", func(c echo4.Context) error {
		in := new(order)
		if err := c.Bind(in); err != nil {
			return err
		}
		return c.Validate(in)
	})
	v := validator.New()
	for _, tt := range []struct {
		name string
		set  func()
		want string
	}{
		{"Validator", func() { five.Validator, four.Validator = usherecho.Validator(v), usherecho4.Validator(v) }, named},
		{"another", func() { five.Validator, four.Validator = byTag{v}, byTag{v} }, unnamed},
	} {
		tt.set()
		for name, h := range map[string]http.Handler{"v5": five, "v4": four} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				w := httptest.NewRecorder()
				r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				h.ServeHTTP(w, r)
				if w.Code != http.StatusBadRequest || w.Body.String() != tt.want {
					t.Errorf("%d %s\nwant %s", w.Code, w.Body, tt.want)
				}
			})
		}
	}
}
