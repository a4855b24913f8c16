package apikey

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/jsonbody"
)

func (h *handler) create(c *call) error {
	d, err := readBody(c.w, c.r, h.MaxBody, jsonbody.EmptyRefused)
	if err != nil {
		return err
	}
	template := Key{Owner: c.owner, Level: h.DefaultLevel}
	d.Required("name", &template.Name)
	readSettings(d).apply(&template)
	d.Optional("environment", &template.Environment)
	if err := bodyFault(d); err != nil {
		return err
	}
	var data any
	if _, _, err := h.Manager.createWith(c.r.Context(), c.by, template, h.issued(&data)); err != nil {
		return err
	}
	c.respond(http.StatusCreated, usher.CodeAPIKeyCreated, "API key created.", data)
	return nil
}

// issued returns a preview that sets the data of a response with the text of a key. The
// preview runs before the key is stored: if it failed later, the text would be lost.
func (h *handler) issued(data *any) preview {
	return func(k Key, secret Secret) (err error) {
		*data, err = show("HandlerConfig.IssuedView", func() any { return h.IssuedView(showable(k), secret) })
		return err
	}
}

// show returns the data of a response, which is certain to be encodable.
func show(name string, f func() any) (data any, err error) {
	err = callback(name, func() error {
		data = f()
		if _, err := json.Marshal(data); err != nil {
			return &usher.Error{
				Status: http.StatusInternalServerError,
				Code:   usher.CodeInternal,
				Cause:  fmt.Errorf("apikey: %s: %w", name, err),
			}
		}
		return nil
	})
	return data, err
}

func (h *handler) list(c *call) error {
	page := usher.Page{Number: 1, Limit: h.PageSize}
	if h.Unpaged {
		// ManagerConfig bounds how many keys an owner has, but a store may have some that
		// were issued under other rules.
		page.Limit = math.MaxInt32
	} else {
		var faults []usher.Field
		// Far beyond any list, and far from overflow.
		const maxPage = 1 << 20
		number(c.r, "page", &page.Number, maxPage, &faults)
		number(c.r, "limit", &page.Limit, h.MaxPageSize, &faults)
		if len(faults) > 0 {
			return usher.Invalid(faults...)
		}
	}
	if err := h.mayRead(c); err != nil {
		return err
	}
	keys, total, err := h.Manager.List(c.r.Context(), c.owner, (page.Number-1)*page.Limit, page.Limit)
	if err != nil {
		return err
	}
	for i := range keys {
		keys[i] = showable(keys[i])
	}
	data, err := show("HandlerConfig.ListView", func() any { return h.ListView(keys) })
	if err != nil {
		h.Manager.failed(c.r.Context(), "list", err)
		return err
	}
	reply := usher.Reply{Code: usher.CodeAPIKeysListed, Message: "API keys found.", Data: data}
	if !h.Unpaged {
		page.Total = total
		reply.Page = &page
	}
	usher.Respond(c.w, c.r, reply)
	return nil
}

// mayRead returns why the caller may not see keys, or nil: an API key that may not manage
// others may not see them either. One that has been narrowed still may.
func (h *handler) mayRead(c *call) error {
	_, err := h.Manager.authorize(c.r.Context(), c.by)
	if errors.Is(err, ErrConflict) {
		return nil
	}
	h.Manager.failed(c.r.Context(), "find", err)
	return err
}

// number sets n to the query parameter name, or to most if that is lower. Without the
// parameter n stays as it is.
func number(r *http.Request, name string, n *int, most int, faults *[]usher.Field) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return
	}
	got, err := strconv.Atoi(text)
	if errors.Is(err, strconv.ErrRange) && got > 0 {
		err = nil
	}
	if err != nil || got < 1 {
		*faults = append(*faults, usher.Field{Name: name, Message: "'" + name + "' must be a whole number from 1."})
		return
	}
	*n = min(got, most)
}

// limited returns err, or if it is ErrLimit the response to it: other keys than the active
// ones are too many.
func limited(err error, message string) error {
	if !errors.Is(err, ErrLimit) {
		return err
	}
	return &usher.Error{Status: http.StatusConflict, Code: usher.CodeAPIKeyLimit, Message: message, Cause: err}
}

// isSet reports whether the query parameter name is true. Anything but true and false is an
// error, and so is a query that cannot be read: a client that misspells it must not believe
// that it has revoked more than it has.
func isSet(r *http.Request, name string) (bool, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	switch values := query[name]; {
	case err != nil:
	case len(values) == 0, len(values) == 1 && values[0] == "false":
		return false, nil
	case len(values) == 1 && values[0] == "true":
		return true, nil
	}
	return false, usher.Invalid(usher.Field{Name: name, Message: "'" + name + "' must be true or false."})
}

func (h *handler) find(c *call) error {
	if err := h.mayRead(c); err != nil {
		return err
	}
	k, err := h.Manager.Find(c.r.Context(), c.owner, c.id)
	if err != nil {
		return err
	}
	data, err := show("HandlerConfig.KeyView", func() any { return h.KeyView(showable(k)) })
	if err != nil {
		h.Manager.failed(c.r.Context(), "find", err)
		return err
	}
	c.respond(http.StatusOK, usher.CodeAPIKeyFound, "API key found.", data)
	return nil
}

func (h *handler) update(c *call) error {
	d, err := readBody(c.w, c.r, h.MaxBody, jsonbody.EmptyRefused)
	if err != nil {
		return err
	}
	set := readSettings(d)
	var disabled bool
	if d.Optional("disabled", &disabled) {
		set = append(set, func(k *Key) {
			switch {
			case !disabled:
				k.DisabledAt = time.Time{}
			case k.DisabledAt.IsZero():
				k.DisabledAt = time.Now()
			}
		})
	}
	if err := bodyFault(d); err != nil {
		return err
	}
	if len(set) == 0 {
		return &usher.Error{
			Status:  http.StatusBadRequest,
			Code:    usher.CodeValidationFailed,
			Message: "The request body must have at least one field.",
		}
	}
	var data any
	_, err = h.Manager.updateWith(c.r.Context(), c.by, c.owner, c.id, set.apply, func(k Key, _ Secret) (err error) {
		data, err = show("HandlerConfig.KeyView", func() any { return h.KeyView(showable(k)) })
		return err
	})
	if err != nil {
		return err
	}
	c.respond(http.StatusOK, usher.CodeAPIKeyUpdated, "API key updated.", data)
	return nil
}

func (h *handler) rotate(c *call) error {
	d, err := readBody(c.w, c.r, h.MaxBody, jsonbody.EmptySameOrigin)
	if err != nil {
		return err
	}
	grace := h.Grace
	var seconds int32
	if d.Optional("grace_seconds", &seconds) {
		grace = time.Duration(seconds) * time.Second
	}
	if err := bodyFault(d); err != nil {
		return err
	}
	var data any
	if _, _, err := h.Manager.rotateWith(c.r.Context(), c.by, c.owner, c.id, grace, h.issued(&data)); err != nil {
		if h.Manager.limits.together {
			return err
		}
		return limited(err, "The account has as many replaced API keys as allowed.")
	}
	c.respond(http.StatusCreated, usher.CodeAPIKeyRotated, "API key rotated.", data)
	return nil
}

func (h *handler) derive(c *call) error {
	d, err := readBody(c.w, c.r, h.MaxBody, jsonbody.EmptyRefused)
	if err != nil {
		return err
	}
	var template Key
	d.Required("name", &template.Name)
	readSettings(d).apply(&template)
	if err := bodyFault(d); err != nil {
		return err
	}
	var data any
	if _, _, err := h.Manager.deriveWith(c.r.Context(), c.by, c.owner, c.id, template, h.issued(&data)); err != nil {
		return limited(err, "The account has as many derived API keys as allowed.")
	}
	c.respond(http.StatusCreated, usher.CodeAPIKeyDerived, "API key derived.", data)
	return nil
}

func (h *handler) revoke(c *call) error {
	line, err := isSet(c.r, "line")
	switch {
	case err != nil:
	case line:
		_, err = h.Manager.RevokeLine(c.r.Context(), c.by, c.owner, c.id)
	default:
		_, err = h.Manager.Revoke(c.r.Context(), c.by, c.owner, c.id)
	}
	if err != nil {
		return err
	}
	c.respond(http.StatusOK, usher.CodeAPIKeyRevoked, "API key revoked.", nil)
	return nil
}

func (c *call) respond(status int, code, message string, data any) {
	usher.Respond(c.w, c.r, usher.Reply{Status: status, Code: code, Message: message, Data: data})
}

// keyView is a key as [NewHandler] shows it by default.
type keyView struct {
	ID              string         `json:"id"`
	Name            string         `json:"name"`
	Description     *string        `json:"description"`
	Prefix          string         `json:"prefix"`
	LastFour        string         `json:"last_four"`
	Scopes          []string       `json:"scopes"`
	Level           usher.Level    `json:"level"`
	Environment     *string        `json:"environment"`
	AllowedNetworks []netip.Prefix `json:"allowed_networks"`
	CreatedAt       time.Time      `json:"created_at"`
	CreatedBy       *string        `json:"created_by"`
	UpdatedAt       time.Time      `json:"updated_at"`
	ExpiresAt       *time.Time     `json:"expires_at"`
	DisabledAt      *time.Time     `json:"disabled_at"`
	RevokedAt       *time.Time     `json:"revoked_at"`
	LastUsedAt      *time.Time     `json:"last_used_at"`
	LastUsedFrom    *netip.Addr    `json:"last_used_from"`
	ReplacedBy      *string        `json:"replaced_by"`
	DerivedFrom     *string        `json:"derived_from"`
}

type issuedView struct {
	APIKey string `json:"api_key"`
	Key    any    `json:"key"`
}

// showable returns k with times that every encoder accepts. A store may hold a key that
// was issued under other rules; one such key must not make the whole list fail.
func showable(k Key) Key {
	for _, t := range []*time.Time{&k.CreatedAt, &k.UpdatedAt, &k.ExpiresAt, &k.DisabledAt, &k.RevokedAt, &k.LastUsedAt} {
		switch {
		case t.After(latest):
			*t = latest
		case t.Year() < 1:
			*t = time.Time{}
		}
	}
	return k
}

func viewKey(k Key) any {
	return keyView{
		ID:              k.ID,
		Name:            k.Name,
		Description:     nullable(k.Description),
		Prefix:          k.Prefix,
		LastFour:        k.LastFour,
		Scopes:          orEmpty(k.Scopes),
		Level:           k.Level,
		Environment:     nullable(k.Environment),
		AllowedNetworks: orEmpty(k.AllowedNetworks),
		CreatedAt:       k.CreatedAt,
		CreatedBy:       nullable(k.CreatedBy),
		UpdatedAt:       k.UpdatedAt,
		ExpiresAt:       nullable(k.ExpiresAt),
		DisabledAt:      nullable(k.DisabledAt),
		RevokedAt:       nullable(k.RevokedAt),
		LastUsedAt:      nullable(k.LastUsedAt),
		LastUsedFrom:    nullable(k.LastUsedFrom),
		ReplacedBy:      nullable(k.ReplacedBy),
		DerivedFrom:     nullable(k.DerivedFrom),
	}
}

// orEmpty returns an empty list for nil, which JSON would write as null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func viewList(keys []Key) any {
	list := make([]any, 0, len(keys))
	for _, k := range keys {
		list = append(list, viewKey(k))
	}
	return list
}

// nullable returns nil for a zero value, which JSON writes as null.
func nullable[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
