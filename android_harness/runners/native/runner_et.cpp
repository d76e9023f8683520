/*
 * ExecuTorch as an engine, linked into the program. A program's inputs have no names: the pack's go
 * by position, with type and rank checked; a size along a dynamic axis is the method's to refuse.
 * Which backend computes is written in the artefact, so there is nothing to choose here.
 */
#include <executorch/extension/data_loader/mmap_data_loader.h>
#include <executorch/extension/memory_allocator/malloc_memory_allocator.h>
#include <executorch/extension/tensor/tensor_ptr.h>
#include <executorch/runtime/core/exec_aten/util/dim_order_util.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine.h"
#include "runner.h"

#ifndef EXECUTORCH_VERSION
#error "say which release is linked: -DEXECUTORCH_VERSION=\"1.5.1\""
#endif

/* The thread pool's header is not in the packages, its library is. */
namespace executorch::extension::threadpool {
class ThreadPool {
public:
    bool _unsafe_reset_threadpool(uint32_t threads);
    size_t get_thread_count() const;
};
ThreadPool *get_threadpool();
} // namespace executorch::extension::threadpool

namespace {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::aten::Tensor;
using executorch::extension::MallocMemoryAllocator;
using executorch::extension::MmapDataLoader;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::HierarchicalAllocator;
using executorch::runtime::MemoryManager;
using executorch::runtime::Method;
using executorch::runtime::MethodMeta;
using executorch::runtime::Program;
using executorch::runtime::Span;
using executorch::runtime::Tag;

constexpr char METHOD[] = "forward";

struct TypePair {
    ScalarType executorch;
    uint32_t pack;
};

constexpr TypePair TYPES[] = {
    {ScalarType::Float, PACK_FLOAT32}, {ScalarType::Byte, PACK_UINT8},
    {ScalarType::Char, PACK_INT8},     {ScalarType::Int, PACK_INT32},
    {ScalarType::Long, PACK_INT64},    {ScalarType::Bool, PACK_BOOL},
};

/* The pack's code of a type; 0: it has none. */
uint32_t pack_type(ScalarType type)
{
    for (const TypePair &pair : TYPES)
        if (pair.executorch == type)
            return pair.pack;
    return 0;
}

int refuse(failure *failure, const char *stage, const char *what, Error error)
{
    return fail(failure, stage, "%s: %s (0x%x)", what, executorch::runtime::to_string(error),
                static_cast<unsigned>(error));
}

/* Memory that a method computes in; it must stay where it is while the method lives. */
struct Memory {
    MallocMemoryAllocator method, temporary;
    std::vector<std::vector<uint8_t>> buffers;
    std::vector<Span<uint8_t>> spans;
    std::optional<HierarchicalAllocator> planned;
    std::optional<MemoryManager> manager;
};

/* An output: where it is in the method, for names and types see engine::declared. */
struct Output {
    size_t place;
    std::string name;
};

/* The arrays of a call, in the method's order; values point into tensors. */
struct Call {
    std::vector<TensorPtr> tensors;
    std::vector<EValue> values;
};

const char *const PROVIDERS[] = {"cpu", nullptr};

} // namespace

const engine_facts ENGINE = {"executorch", PROVIDERS, false};

struct engine {
    std::optional<MmapDataLoader> loader;
    std::optional<Program> program;
    Memory memory;
    std::optional<Method> method;
    std::vector<Output> outputs;
    std::vector<declared> declared_outputs;
    std::vector<Call> calls;
    std::string backend;
    uint32_t threads = 1;
};

namespace {

/* No exception leaves for C; only memory can run out here, ExecuTorch itself throws nothing. */
template <typename Step>
int guarded(failure *failure, const char *stage, Step step)
{
    try {
        return step();
    } catch (const std::bad_alloc &) {
        return fail(failure, stage, "no memory");
    }
}

int set_threads(engine &engine, uint32_t threads, failure *failure)
{
    auto *pool = executorch::extension::threadpool::get_threadpool();

    if (pool == nullptr) { /* a build without one computes on the caller's thread */
        if (threads > 1)
            return fail(failure, "load", "this build of ExecuTorch has no thread pool");
        return 0;
    }
    if (pool->get_thread_count() != threads && !pool->_unsafe_reset_threadpool(threads))
        return fail(failure, "load", "the thread pool does not take %u threads", threads);
    engine.threads = static_cast<uint32_t>(pool->get_thread_count());
    return 0;
}

int load_program(engine &engine, const char *path, failure *failure)
{
    auto loader = MmapDataLoader::from(path, MmapDataLoader::MlockConfig::NoMlock);

    if (!loader.ok())
        return refuse(failure, "load", "cannot open the program", loader.error());
    engine.loader.emplace(std::move(*loader));
    auto program = Program::load(&*engine.loader, Program::Verification::InternalConsistency);
    if (!program.ok())
        return refuse(failure, "load", "not a sound program", program.error());
    engine.program.emplace(std::move(*program));
    return 0;
}

int plan_memory(Memory &memory, const MethodMeta &meta, failure *failure)
{
    const size_t count = meta.num_memory_planned_buffers();

    for (size_t i = 0; i < count; i++) {
        const auto size = meta.memory_planned_buffer_size(i);
        if (!size.ok() || *size < 0)
            return refuse(failure, "init", "memory plan", size.error());
        memory.buffers.emplace_back(static_cast<size_t>(*size));
        memory.spans.emplace_back(memory.buffers.back().data(), memory.buffers.back().size());
    }
    memory.planned.emplace(Span<Span<uint8_t>>(memory.spans.data(), memory.spans.size()));
    memory.manager.emplace(&memory.method, &*memory.planned, &memory.temporary);
    return 0;
}

int name_backends(engine &engine, const MethodMeta &meta, failure *failure)
{
    for (size_t i = 0; i < meta.num_backends(); i++) {
        const auto name = meta.get_backend_name(i);
        if (!name.ok())
            return refuse(failure, "init", "backends", name.error());
        engine.backend += engine.backend.empty() ? "" : ",";
        engine.backend += *name;
    }
    if (engine.backend.empty())
        engine.backend = "portable";
    return 0;
}

int declare_outputs(engine &engine, const MethodMeta &meta, failure *failure)
{
    for (size_t i = 0; i < meta.num_outputs(); i++) {
        const auto tag = meta.output_tag(i);
        if (!tag.ok())
            return refuse(failure, "init", "outputs", tag.error());
        if (*tag != Tag::Tensor)
            continue;
        const auto info = meta.output_tensor_meta(i);
        if (!info.ok())
            return refuse(failure, "init", "outputs", info.error());
        const uint32_t type = pack_type(info->scalar_type());
        if (type == 0)
            continue;
        engine.outputs.push_back({i, "output_" + std::to_string(i)});
        engine.declared_outputs.push_back({nullptr, type});
    }
    for (size_t i = 0; i < engine.outputs.size(); i++) /* the strings stay where they are now */
        engine.declared_outputs[i].name = engine.outputs[i].name.data();
    return engine.outputs.empty() ? fail(failure, "init", "it has no output of a numeric type") : 0;
}

int init(engine &engine, failure *failure)
{
    const auto meta = engine.program->method_meta(METHOD);

    if (!meta.ok())
        return refuse(failure, "init", "no method 'forward'", meta.error());
    if (plan_memory(engine.memory, *meta, failure) != 0)
        return -1;
    auto method = engine.program->load_method(METHOD, &*engine.memory.manager);
    if (!method.ok())
        return refuse(failure, "init", "cannot load 'forward'", method.error());
    engine.method.emplace(std::move(*method));
    if (name_backends(engine, *meta, failure) != 0)
        return -1;
    return declare_outputs(engine, *meta, failure);
}

int match_input(const MethodMeta &meta, const pack &pack, uint32_t place, failure *failure)
{
    const declared &given = pack.declared[place];
    const auto tag = meta.input_tag(place);

    if (!tag.ok() || *tag != Tag::Tensor)
        return fail(failure, "inputs", "input %u is no tensor", place);
    const auto info = meta.input_tensor_meta(place);
    if (!info.ok())
        return refuse(failure, "inputs", "input", info.error());
    if (pack_type(info->scalar_type()) != given.type)
        return fail(failure, "inputs", "input %u takes %s, the pack's '%s' is %s", place,
                    pack_type_name(pack_type(info->scalar_type())), given.name,
                    pack_type_name(given.type));
    for (uint32_t call = 0; call < pack.calls; call++)
        if (pack_call(&pack, call)[place].rank != info->sizes().size())
            return fail(failure, "inputs", "input %u has %zu dimensions, '%s' of call %u has %u",
                        place, info->sizes().size(), given.name, call,
                        pack_call(&pack, call)[place].rank);
    return 0;
}

int match_inputs(const engine &engine, const pack &pack, failure *failure)
{
    const MethodMeta meta = engine.method->method_meta();

    if (meta.num_inputs() != pack.inputs)
        return fail(failure, "inputs", "the artefact takes %zu inputs, the pack holds %u",
                    meta.num_inputs(), pack.inputs);
    for (uint32_t place = 0; place < pack.inputs; place++)
        if (match_input(meta, pack, place, failure) != 0)
            return -1;
    return 0;
}

ScalarType scalar_type(uint32_t type)
{
    for (const TypePair &pair : TYPES)
        if (pair.pack == type)
            return pair.executorch;
    return ScalarType::Undefined;
}

int add_tensor(Call &call, const tensor &given, uint32_t type, failure *failure)
{
    std::vector<SizesType> sizes;

    for (uint32_t i = 0; i < given.rank; i++) {
        if (given.sizes[i] > std::numeric_limits<SizesType>::max())
            return fail(failure, "inputs", "a dimension is too large for ExecuTorch");
        sizes.push_back(static_cast<SizesType>(given.sizes[i]));
    }
    call.tensors.push_back(executorch::extension::make_tensor_ptr(std::move(sizes), given.data,
                                                                  scalar_type(type)));
    call.values.emplace_back(*call.tensors.back());
    return 0;
}

int prepare(engine &engine, const pack &pack, failure *failure)
{
    if (match_inputs(engine, pack, failure) != 0)
        return -1;
    engine.calls.resize(pack.calls);
    for (uint32_t number = 0; number < pack.calls; number++)
        for (uint32_t place = 0; place < pack.inputs; place++)
            if (add_tensor(engine.calls[number], pack_call(&pack, number)[place],
                           pack.declared[place].type, failure) != 0)
                return -1;
    return 0;
}

int collect(const engine &engine, size_t index, tensor *out, failure *failure)
{
    const EValue &value = engine.method->get_output(engine.outputs[index].place);

    if (!value.isTensor())
        return fail(failure, "run", "output %zu is no tensor", index);
    const Tensor &found = value.toTensor();
    const auto order = found.dim_order();
    if (pack_type(found.scalar_type()) != engine.declared_outputs[index].type ||
        order.size() > PACK_MAX_RANK ||
        !executorch::runtime::is_contiguous_dim_order(order.data(), order.size()))
        return fail(failure, "run", "output %zu is not laid out as it was declared", index);
    out->rank = static_cast<uint32_t>(found.dim());
    for (uint32_t i = 0; i < out->rank; i++)
        out->sizes[i] = found.size(i);
    out->bytes = found.nbytes();
    out->data = found.mutable_data_ptr();
    return 0;
}

} // namespace

extern "C" {

engine *engine_new(void)
{
    return new (std::nothrow) engine;
}

void engine_close(engine *engine)
{
    delete engine;
}

int engine_open(engine *, const options *, failure *)
{
    executorch::runtime::runtime_init();
    return 0;
}

int engine_load(engine *engine, const options *options, failure *failure)
{
    return guarded(failure, "load", [&] {
        if (set_threads(*engine, options->threads, failure) != 0)
            return -1;
        return load_program(*engine, options->model, failure);
    });
}

int engine_init(engine *engine, failure *failure)
{
    return guarded(failure, "init", [&] { return init(*engine, failure); });
}

const char *engine_version(const engine *)
{
    return EXECUTORCH_VERSION;
}

bool engine_telemetry_disabled(const engine *)
{
    return true; /* ExecuTorch has none */
}

const char *engine_backend(const engine *engine)
{
    return engine->backend.c_str();
}

uint32_t engine_threads(const engine *engine)
{
    return engine->threads;
}

const declared *engine_outputs(const engine *engine, uint32_t *count)
{
    *count = static_cast<uint32_t>(engine->declared_outputs.size());
    return engine->declared_outputs.data();
}

int engine_prepare(engine *engine, const pack *pack, failure *failure)
{
    return guarded(failure, "inputs", [&] { return prepare(*engine, *pack, failure); });
}

int engine_run(engine *engine, uint32_t call, failure *failure)
{
    const std::vector<EValue> &values = engine->calls[call].values;
    Error error = engine->method->set_inputs({values.data(), values.size()});

    if (error != Error::Ok)
        return refuse(failure, "run", "inputs", error);
    error = engine->method->execute();
    return error == Error::Ok ? 0 : refuse(failure, "run", "execution", error);
}

int engine_collect(engine *engine, tensor *out, failure *failure)
{
    for (size_t i = 0; i < engine->outputs.size(); i++)
        if (collect(*engine, i, &out[i], failure) != 0)
            return -1;
    return 0;
}

void engine_release(engine *) {} /* the next call writes into the same memory */

} // extern "C"

int main(int count, char **words)
{
    return run_program(count, words);
}
