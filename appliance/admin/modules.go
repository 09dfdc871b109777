package admin

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/weirhq/weir/appliance/consume"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/module"
)

// Modules is the answer to a list.
type Modules struct {
	Modules []module.Info `json:"modules"`
}

// ModuleAddition makes uploaded pieces a version of the module that the
// manifest names.
type ModuleAddition struct {
	Digest    string `json:"digest"` // SHA-256 of the module, hex
	Size      int64  `json:"size"`
	Manifest  string `json:"manifest"`            // YAML
	Signature []byte `json:"signature,omitempty"` // 64 bytes
}

// ModuleVersion names a version of a module.
type ModuleVersion struct {
	Version string `json:"version"`
}

// ModuleLogs is what a module's version said last.
type ModuleLogs struct {
	Lines []module.LogLine `json:"lines"`
}

func (s *Service) moduleRoutes() []route {
	return []route{
		{"GET", "modules", "ListModules", s.listModules},
		{"GET", "modules/{name}", "DescribeModule", s.describeModule},
		{"PUT", "module-pieces/{digest}/{piece}", "AddModule", s.putPiece},
		{"POST", "modules", "AddModule", s.addModule},
		{"POST", "modules/{name}/activate", "ActivateModule", s.moduleVersionAction(s.Modules.Activate)},
		{"POST", "modules/{name}/shadow", "ShadowModule", s.moduleVersionAction(s.Modules.Shadow)},
		{"POST", "modules/{name}/remove", "RemoveModule", s.moduleVersionAction(s.Modules.Remove)},
		{"POST", "modules/{name}/rollback", "RollbackModule", s.moduleAction(s.Modules.Rollback)},
		{"POST", "modules/{name}/deactivate", "DeactivateModule", s.moduleAction(s.Modules.Deactivate)},
		{"POST", "modules/{name}/resume", "ResumeConsumer", s.moduleAction(s.resumeConsumer)},
		{"POST", "modules/{name}/forget", "ForgetConsumer", s.forgetConsumer},
		{"GET", "modules/{name}/logs", "GetModuleLogs", s.moduleLogs},
		{"GET", "consumers", "ListConsumers", s.listConsumers},
	}
}

// moduleError words the errors of the catalogue.
func moduleError(err error) error {
	for _, row := range []struct {
		is     error
		status int
		code   string
	}{
		{module.ErrNotFound, 404, "ModuleNotFound"},
		{module.ErrNoVersion, 404, "ModuleVersionNotFound"},
		{module.ErrExists, 409, "ModuleVersionExists"},
		{module.ErrActive, 409, "ModuleVersionActive"},
		{module.ErrShadow, 409, "ModuleShadow"},
		{module.ErrNoPrevious, 409, "NoPreviousVersion"},
		{module.ErrTooLarge, 400, "ModuleTooLarge"},
		{module.ErrFull, 400, "ModuleCatalogueFull"},
		{module.ErrUpload, 400, "ModuleUploadIncomplete"},
		{module.ErrSignature, 403, "ModuleSignatureRefused"},
		{module.ErrVectors, 400, "ModuleVectorsFail"},
		{module.ErrKind, 400, "ModuleKind"},
		{module.ErrUnsupported, 400, "ModuleUnsupported"},
		{consume.ErrActive, 409, "ConsumerActive"},
	} {
		if errors.Is(err, row.is) {
			return &Error{Status: row.status, Code: row.code, Message: err.Error()}
		}
	}
	var problems manifest.Problems
	if errors.As(err, &problems) {
		return &Error{Status: 400, Code: "InvalidManifest", Message: err.Error()}
	}
	return err
}

func (s *Service) listModules(context.Context, *call) (any, error) {
	return &Modules{Modules: append([]module.Info{}, s.Modules.List()...)}, nil
}

func (s *Service) describeModule(_ context.Context, c *call) (any, error) {
	info, err := s.Modules.Describe(c.params["name"])
	if err != nil {
		return nil, moduleError(err)
	}
	return info, nil
}

func (s *Service) putPiece(ctx context.Context, c *call) (any, error) {
	digest, err := module.ParseDigest(c.params["digest"])
	if err != nil {
		return nil, &Error{Status: 400, Code: "InvalidArgument", Message: err.Error()}
	}
	n, err := strconv.Atoi(c.params["piece"])
	if err != nil || n < 0 {
		return nil, &Error{Status: 400, Code: "InvalidArgument", Message: fmt.Sprintf("piece: %q; expecting a number from 0", c.params["piece"])}
	}
	if err := s.Modules.PutChunk(ctx, digest, n, c.body); err != nil {
		return nil, moduleError(err)
	}
	return struct {
		Bytes int `json:"bytes"`
	}{len(c.body)}, nil
}

func (s *Service) addModule(ctx context.Context, c *call) (any, error) {
	var in ModuleAddition
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	digest, err := hex.DecodeString(in.Digest)
	if err != nil || len(digest) != 32 {
		return nil, &Error{Status: 400, Code: "InvalidArgument", Message: fmt.Sprintf("digest: %q; expecting 64 hex digits", in.Digest)}
	}
	info, err := s.Modules.Add(ctx, module.Addition{Digest: digest, Size: in.Size, Manifest: []byte(in.Manifest), Signature: in.Signature})
	if err != nil {
		e := moduleError(err)
		if errorOf(e).Status == 500 { // a module that does not compile or start is the uploader's to mend
			return nil, &Error{Status: 400, Code: "InvalidModule", Message: err.Error()}
		}
		return nil, e
	}
	return info, nil
}

func (s *Service) moduleAction(do func(ctx context.Context, name string) error) func(context.Context, *call) (any, error) {
	return func(ctx context.Context, c *call) (any, error) {
		if err := do(ctx, c.params["name"]); err != nil {
			return nil, moduleError(err)
		}
		return s.describeModule(ctx, c)
	}
}

func (s *Service) moduleVersionAction(do func(ctx context.Context, name, version string) error) func(context.Context, *call) (any, error) {
	return func(ctx context.Context, c *call) (any, error) {
		var in ModuleVersion
		if err := c.decode(&in); err != nil {
			return nil, err
		}
		if err := do(ctx, c.params["name"], in.Version); err != nil {
			return nil, moduleError(err)
		}
		info, err := s.Modules.Describe(c.params["name"])
		if errors.Is(err, module.ErrNotFound) { // its last version was removed
			return module.Info{Name: c.params["name"]}, nil
		}
		return info, moduleError(err)
	}
}

// moduleLogs answers with the lines of the version in the query, by default the
// active one.
func (s *Service) moduleLogs(_ context.Context, c *call) (any, error) {
	v, err := s.Modules.Active(c.params["name"])
	if version := c.query.Get("version"); version != "" {
		v, err = s.Modules.Version(c.params["name"], version)
	}
	if err != nil {
		return nil, moduleError(err)
	}
	return &ModuleLogs{Lines: append([]module.LogLine{}, v.Logs()...)}, nil
}

// Consumers is what every consumer does on every shard.
type Consumers struct {
	Consumers []consume.ShardStatus `json:"consumers"`
}

func (s *Service) listConsumers(context.Context, *call) (any, error) {
	return &Consumers{Consumers: append([]consume.ShardStatus{}, s.Consumers.Status()...)}, nil
}

func (s *Service) resumeConsumer(_ context.Context, name string) error {
	if _, err := s.Modules.Active(name); err != nil {
		return err
	}
	s.Consumers.Resume(name)
	return nil
}

// forgetConsumer deletes the checkpoints, state and outbox of a consumer, also
// of one that is no longer in the catalogue.
func (s *Service) forgetConsumer(ctx context.Context, c *call) (any, error) {
	if err := s.Consumers.Forget(ctx, c.params["name"]); err != nil {
		return nil, moduleError(err)
	}
	return struct{}{}, nil
}
