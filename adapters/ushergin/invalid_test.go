package ushergin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/gin-gonic/gin/binding"
	"github.com/go-playground/validator/v10"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/ushergin"
	"github.com/usher-go/usher/idempotency"
)

type base struct {
	Reference string `binding:"required" json:"ref"`
}

type order struct {
	base

	Title string `binding:"required,max=5" json:"title"`
	Lines []line `binding:"dive"           json:"lines"`
	Kind  string `binding:"omitempty,oneof=new used" json:"-" form:"kind"`
}

type line struct {
	Quantity int               `binding:"gte=1"                     json:"quantity"`
	Notes    map[string]string `binding:"dive,keys,endkeys,max=1" json:"notes"`
}

// bound serves POST /orders with a handler that leaves the error of binding to Errors.
func bound(t *testing.T, bind func(c *gin.Context, in any) error, use ...gin.HandlerFunc) func(contentType, body string) *httptest.ResponseRecorder {
	t.Helper()
	engine := gin.New()
	engine.Use(ushergin.Errors)
	engine.Use(use...)
	engine.POST("/orders", func(c *gin.Context) {
		if err := bind(c, new(order)); err != nil {
			_ = c.Error(err)
			return
		}
		c.Status(http.StatusCreated)
	})
	return func(contentType, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/orders?kind=new", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Idempotency-Key", fmt.Sprintf("%x.", body))
		w := httptest.NewRecorder()
		engine.ServeHTTP(w, r)
		return w
	}
}

// named sets the Validator for one test.
func named(t *testing.T) {
	t.Helper()
	before := binding.Validator
	t.Cleanup(func() { binding.Validator = before })
	binding.Validator = ushergin.Validator(before)
}

const (
	notJSON  = `{"type":"about:blank","title":"Bad Request","status":400,"detail":"The request body is not valid JSON.","code":"validation_failed"}`
	notValid = `{"type":"about:blank","title":"Bad Request","status":400,"detail":"The request is not valid.","code":"validation_failed","errors":[%s]}`
)

// The idiom of gin: ShouldBind, and Error. It is the client's fault, and the client learns
// which fields are faulty, by the names that the client knows.
func TestAnErrorOfBindingNamesItsFields(t *testing.T) {
	named(t)
	field := func(name, message string) string {
		return fmt.Sprintf(`{"field":%q,"message":"'%s' %s."}`, name, name, message)
	}
	binds := map[string]func(c *gin.Context, in any) error{
		"ShouldBindJSON": func(c *gin.Context, in any) error { return c.ShouldBindJSON(in) },
		"BodyWith":       func(c *gin.Context, in any) error { return c.ShouldBindBodyWithJSON(in) },
		"wrapped": func(c *gin.Context, in any) error {
			if err := c.ShouldBindJSON(in); err != nil {
				return &gin.Error{Err: err, Type: gin.ErrorTypeBind}
			}
			return nil
		},
	}
	for name, bind := range binds {
		for _, once := range []bool{false, true} {
			var use []gin.HandlerFunc
			if once {
				use = append(use, newOnce(idempotency.ProfileDefault))
			}
			send := bound(t, bind, use...)
			for _, tt := range []struct{ body, want string }{
				{`{`, notJSON},
				{`no JSON`, notJSON},
				{``, notJSON},
				{`{"title":7}`, fmt.Sprintf(notValid, field("title", "must be a string"))},
				{`{"ref":"r","title":"t","lines":[{"quantity":"1"}]}`, fmt.Sprintf(notValid, field("lines.quantity", "must be an integer"))},
				{`{"title":"t"}`, fmt.Sprintf(notValid, field("ref", "is required"))},
				{`{"ref":"r","title":"123456"}`, fmt.Sprintf(notValid, field("title", "must have at most 5 characters"))},
				{
					`{"ref":"r","lines":[{"quantity":1},{"quantity":-1,"notes":{"a.b":"long"}}]}`,
					fmt.Sprintf(notValid, field("title", "is required")+","+field("lines[1].quantity", "must be at least 1")+","+
						field("lines[1].notes[a.b]", "must have at most 1 character")),
				},
			} {
				t.Run(fmt.Sprint(name, "/", once, "/", tt.body), func(t *testing.T) {
					w := send("application/json", tt.body)
					if w.Code != http.StatusBadRequest || w.Body.String() != tt.want {
						t.Errorf("%d %s\nwant %s", w.Code, w.Body, tt.want)
					}
				})
			}
		}
	}
}

// A validator names fields by their place in the value, which the type may not show.
func TestTheNameOfAFieldIsItsPlaceInTheDocument(t *testing.T) {
	named(t)
	type item struct {
		Title string `binding:"required"`
	}
	type Lines []line
	type document struct {
		Lines `binding:"dive"`

		Anything any      `json:"anything"`
		Every    [][]line `binding:"dive,dive" json:"every"`
	}
	for _, tt := range []struct {
		in   any
		want []string
	}{
		{document{Anything: item{}}, []string{"anything.Title"}},
		{document{Lines: Lines{{Quantity: 1}, {}}}, []string{"Lines[1].quantity"}},
		{&document{Every: [][]line{{}, {{Quantity: 1}, {}}}}, []string{"every[1][1].quantity"}},
	} {
		e, ok := errors.AsType[*usher.Error](binding.Validator.ValidateStruct(tt.in))
		if !ok {
			t.Errorf("%+v is valid", tt.in)
			continue
		}
		var names []string
		for _, f := range e.Fields {
			names = append(names, f.Name)
		}
		if !slices.Equal(names, tt.want) {
			t.Errorf("fields %q, want %q", names, tt.want)
		}
	}
}

// An error of encoding/json about another document is a fault of the server: the request
// may have had an effect, and a retry must not learn that it had none.
func TestAnErrorOfAnotherDocumentIsPrivate(t *testing.T) {
	for name, body := range map[string]string{
		"a page": "<html>", "nothing": "", "the beginning": `{"titles":`, "a type": `{"charge":"x"}`,
	} {
		t.Run(name, func(t *testing.T) {
			send := bound(t, func(c *gin.Context, in any) error {
				if err := c.ShouldBindJSON(in); err != nil {
					return err
				}
				var charged struct{ Charge int }
				return json.NewDecoder(strings.NewReader(body)).Decode(&charged)
			})
			if w := send("application/json", `{"ref":"r","title":"t"}`); w.Code != http.StatusInternalServerError {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	t.Run("a connection that ends", func(t *testing.T) {
		send := bound(t, func(*gin.Context, any) error { return io.EOF })
		if w := send("", ""); w.Code != http.StatusInternalServerError {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

func TestErrorsByType(t *testing.T) {
	private := errors.New("private")
	for _, tt := range []struct {
		name   string
		status int
		err    gin.Error
		want   int
		text   string
	}{
		{"of binding", 0, gin.Error{Err: private, Type: gin.ErrorTypeBind}, 400, "The request is not valid."},
		{"of binding, with a status", 422, gin.Error{Err: private, Type: gin.ErrorTypeBind}, 422, "The request is not valid."},
		{"public", 0, gin.Error{Err: errors.New("no such town"), Type: gin.ErrorTypePublic}, 400, "no such town"},
		{"public, with a status", 409, gin.Error{Err: errors.New("taken"), Type: gin.ErrorTypePublic}, 409, "taken"},
		{"private", 0, gin.Error{Err: private, Type: gin.ErrorTypePrivate}, 500, ""},
		{"of rendering", 0, gin.Error{Err: private, Type: gin.ErrorTypeRender}, 500, ""},
		{"a body that is too large", 0, gin.Error{Err: &http.MaxBytesError{Limit: 1}, Type: gin.ErrorTypeBind}, 413, "The request body is too large."},
		{"of usher", 422, gin.Error{Err: &usher.Error{Status: 402}, Type: gin.ErrorTypeBind}, 402, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := serve(t, func(c *gin.Context) {
				if tt.status != 0 {
					c.Status(tt.status)
				}
				_ = c.Error(&tt.err)
			}, ushergin.Errors)
			var got struct{ Detail string }
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != tt.want || got.Detail != tt.text {
				t.Errorf("%d %s, want %d %q", w.Code, w.Body, tt.want, tt.text)
			}
		})
	}
}

// Programs that ask for the validator's own errors still find them.
func TestValidatorKeepsItsErrors(t *testing.T) {
	named(t)
	err := binding.Validator.ValidateStruct(&[]order{{}, {base: base{"r"}, Title: "t"}})
	list, ok := errors.AsType[binding.SliceValidationError](err)
	if !ok || len(list) != 1 {
		t.Fatal(err)
	}
	if _, ok := errors.AsType[validator.ValidationErrors](list[0]); !ok {
		t.Error(err)
	}
	if _, ok := binding.Validator.Engine().(*validator.Validate); !ok {
		t.Errorf("the engine is a %T", binding.Validator.Engine())
	}
	if err := binding.Validator.ValidateStruct(&order{base: base{"r"}, Title: "t"}); err != nil {
		t.Error(err)
	}
}

// Without Validator the names are those of the validator, without the name of the type.
func TestFieldsWithoutValidator(t *testing.T) {
	send := bound(t, func(c *gin.Context, in any) error { return c.ShouldBindJSON(in) })
	w := send("application/json", `{"ref":"r","title":"t","lines":[{"quantity":0}]}`)
	const want = `{"field":"Lines[0].Quantity","message":"'Lines[0].Quantity' must be at least 1."}`
	if w.Code != 400 || w.Body.String() != fmt.Sprintf(notValid, want) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// An error in c.Errors beside a response is a note. Fail says that the body is not whole.
func TestFailAfterAPartOfTheBodyAborts(t *testing.T) {
	engine := gin.New()
	engine.Use(ushergin.Middleware(newEnvelope()), ushergin.Errors)
	engine.GET("/note", func(c *gin.Context) { c.JSON(http.StatusOK, 1); _ = c.Error(errors.New("slow")) })
	engine.GET("/fail", func(c *gin.Context) {
		c.Data(http.StatusOK, "application/json", []byte("[1,2"))
		usher.Fail(c.Writer, c.Request, errors.New("the connection to the database is lost"))
	})
	s := httptest.NewServer(engine)
	defer s.Close()
	for path, whole := range map[string]bool{"/note": true, "/fail": false} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := s.Client().Do(r)
		if err == nil {
			_, err = io.ReadAll(response.Body)
			_ = response.Body.Close()
		}
		if (err == nil) != whole {
			t.Errorf("%s: %v", path, err)
		}
	}
}
