#include "client/cli/model_choice.h"

#include <cstring>
#include <set>

namespace mnemo::cli {
namespace {

// Words that are single tokens in most vocabularies: their ids stand for ordinary text.
constexpr char kWords[] =
    " the of and to in is that for it as was with be by on not he his but at are this have from or had an "
    "they which one you were all"
    " her she there would their we him been has when who will no more if out so up said what its about than "
    "into them can only other"
    " time new some could these two may first then do any like my now over such our man me even most made "
    "after also did many off"
    " before must well back through years much where your way down should because long each just state "
    "people those too mr how little"
    " good world make very year still see work between life being under three never day same another know "
    "while last might us great"
    " old against go few house use during without again place around small however home found water light "
    "school number";

}  // namespace

absl::StatusOr<std::vector<int32_t>> OrdinaryIds(client::Client* client,
                                                 const v1::ListModelsResponse::Model& model) {
  v1::TokenizeRequest request;
  request.set_model(model.name());
  request.set_text(kWords);
  MNEMO_ASSIGN_OR_RETURN(const v1::TokenizeResponse response, client->Tokenize(request));
  std::set<int32_t> ids(response.ids().begin(), response.ids().end());
  for (const int32_t id : model.end_token_ids()) ids.erase(id);
  ids.erase(model.bos_token_id());
  std::erase_if(ids, [&](int32_t id) { return id < 0 || id >= model.vocabulary(); });
  if (ids.size() < 8)
    return Internal("the model's tokenizer gave {} ids for {} bytes of words", ids.size(),
                    std::strlen(kWords));
  return std::vector<int32_t>(ids.begin(), ids.end());
}

absl::StatusOr<v1::ListModelsResponse::Model> FindModel(client::Client* client, const std::string& name) {
  MNEMO_ASSIGN_OR_RETURN(const v1::ListModelsResponse models, client->ListModels());
  for (const v1::ListModelsResponse::Model& model : models.models()) {
    if (name.empty() ? model.is_default() : model.name() == name) return model;
  }
  return NotFound("model '{}' is not served; `mnemo models` lists those that are", name);
}

}  // namespace mnemo::cli
